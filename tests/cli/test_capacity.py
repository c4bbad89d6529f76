"""``capacity``: offerings of training plans, and the plan that was bought in the config file."""

from __future__ import annotations

import shlex

import pytest

from hyperpod_eks.cli.commands import capacity
from hyperpod_eks.cli.documents import head
from hyperpod_eks.cli.schemas.views import Capacity, Offering
from hyperpod_eks.local.aws.sim import Fault
from tests.conftest import Clients, User

ARN = "arn:aws:sagemaker:us-west-2:123456789012:training-plan/mine"
TEXT = """\
name: demo
region: us-west-2
instance_groups:
- name: cpu
  instance_type: ml.m5.2xlarge
  instance_count: 1
- name: train   # waits for capacity
  instance_type: ml.p5.48xlarge
  instance_count: 2
"""
SEARCH = ("capacity", "ml.p5.48xlarge", "--count", "2", "--hours", "48", "--region", "us-west-2")


def test_an_offering_is_found_bought_by_hand_and_used(user: User, aws: Clients) -> None:
    said = user.types(*SEARCH, "--after", "2027-01-11", "-o", "json")

    assert said.code == 0, said.err
    first, second = said.document["offerings"]
    assert {**first, "id": "", "buy": ""} == {
        "id": "", "instance_type": "ml.p5.48xlarge", "instance_count": 2,
        "availability_zones": ["us-west-2a"], "start": "2027-01-11T00:00:00Z",
        "end": "2027-01-13T00:00:00Z", "hours": 48.0, "upfront_fee": "12345.67",
        "currency": "USD", "buy": "",
    }  # fmt: skip
    assert second["availability_zones"] == ["us-west-2b"]
    assert user.mutations() == []
    assert aws.sagemaker.list_training_plans()["TrainingPlanSummaries"] == []

    program, service, operation, *rest = shlex.split(first["buy"])
    assert (program, service, operation) == ("aws", "sagemaker", "create-training-plan")
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    assert given.pop("--region") == "us-west-2"
    bought = aws.sagemaker.create_training_plan(
        TrainingPlanName=given.pop("--training-plan-name"),
        TrainingPlanOfferingId=given.pop("--training-plan-offering-id"),
    )
    assert given == {}

    (user.folder / "demo.yaml").write_text(TEXT)
    arn = bought["TrainingPlanArn"]
    said = user.types("capacity", "-f", "demo.yaml", "--write", f"train={arn}")
    assert (said.code, said.out) == (
        0,
        f"train: training_plan_arn: {arn}\nTo use it: hyperpod-eks create -f demo.yaml\n",
    )
    line = "- name: train   # waits for capacity\n"
    text = TEXT.replace(line, f"{line}  training_plan_arn: {arn}\n")
    assert (user.folder / "demo.yaml").read_text() == text
    assert user.types("plan", "-f", "demo.yaml").code == 0


def test_the_text_has_dates_price_and_the_commands(user: User) -> None:
    said = user.types(*SEARCH, "--after", "2027-01-11")

    about, _, heads, first, id_, second, _, _, *rest = said.out.splitlines()
    assert about == "offerings of ml.p5.48xlarge in us-west-2, times in UTC"
    assert heads.split() == ["START", "END", "HOURS", "COUNT", "PRICE", "ZONES"]
    assert first.split() == [
        "2027-01-11", "00:00", "2027-01-13", "00:00", "48", "2", "12345.67", "USD", "a",
    ]  # fmt: skip
    assert second.endswith("b")
    assert rest[1].startswith(
        "  aws sagemaker create-training-plan --training-plan-name p5-48xlarge-20270111"
        f" --training-plan-offering-id {id_.strip()}"
    )
    assert rest[-1] == "  hyperpod-eks capacity -f FILE --write GROUP=ARN"


def test_the_text_fits_80_columns_with_ids_as_long_as_those_of_aws() -> None:
    """The SageMaker developer guide shows offerings named tpo- and a SHA-256."""
    row: Offering = {
        "id": f"tpo-{'0' * 64}",
        "instance_type": "ml.p6e-gb200.36xlarge",
        "instance_count": 128,
        "availability_zones": ["us-west-2a", "us-west-2b"],
        "start": "2027-01-11T11:30:00Z",
        "end": None,
        "hours": 4368.5,
        "upfront_fee": "12345678.90",
        "currency": "USD",
        "buy": "aws",
    }
    other: Offering = {**row, "end": "2027-07-12T11:30:00Z", "upfront_fee": None}
    document: Capacity = {
        **head("capacity"), "region": "us-west-2", "offerings": [row, other],
    }  # fmt: skip
    lines = capacity.text(document).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines.count(f"  {row['id']}") == 2
    assert lines[3].split()[-2:] == ["a,", "b"]


def test_without_offerings_it_says_so(user: User) -> None:
    said = user.types(*SEARCH, "--after", "2027-01-11", "--before", "2027-01-12")
    assert (said.code, said.out) == (
        0, "no offerings in us-west-2; try other dates, or another duration\n",
    )  # fmt: skip
    user.stack.faults.append(
        Fault("sagemaker", "Search.*", code="AccessDeniedException", message="No.")
    )
    assert user.types(*SEARCH).code == 3


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no type": (("capacity",), "an instance type is required"),
    "a type without plans": (("capacity", "ml.m5.2xlarge"), "no training plan has"),
    "dates": ((*SEARCH, "--after", "2027-01-12", "--before", "2027-01-11"), "--after is not"),
    "no date": ((*SEARCH, "--after", "tomorrow"), "invalid date 'tomorrow'"),
    "a date of no year": ((*SEARCH, "--before", "0001-01-01T00:00+23:00"), "invalid date"),
    "a file alone": ((*SEARCH, "-f", "demo.yaml"), "-f needs --write"),
    "no file": (("capacity", "--write", f"train={ARN}"), "needs a config file"),
    "two things": ((*SEARCH, "-f", "demo.yaml", "--write", f"train={ARN}"), "does not search"),
    "no pair": (("capacity", "-f", "demo.yaml", "--write", "train"), "is not GROUP=ARN"),
    "no group": (
        ("capacity", "-f", "demo.yaml", "--write", f"x={ARN}"),
        "no instance group x\nIt has cpu, train.",
    ),
    "no ARN": (("capacity", "-f", "demo.yaml", "--write", "train=mine"), "training_plan_arn"),
    "another region": (
        ("capacity", "-f", "demo.yaml", "--write", f"train={ARN.replace('west', 'east')}"),
        "us-east-2",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused_and_nothing_is_written(user: User, what: str) -> None:
    words, told = WRONG[what]
    (user.folder / "demo.yaml").write_text(TEXT)

    said = user.types(*words)

    assert (said.code, said.out) == (8 if what == "no group" else 2, "")
    assert told in said.err
    assert (user.folder / "demo.yaml").read_text() == TEXT
    assert user.mutations() == []


HEAD = "name: demo\nregion: us-west-2\ninstance_groups:"
FORMS = {
    "a flow mapping": (
        "\n- {name: train, instance_type: ml.p5.48xlarge, instance_count: 2}  # c\n",
        (
            f"\n- {{name: train, training_plan_arn: {ARN}, instance_type: ml.p5.48xlarge,"
            " instance_count: 2}  # c\n"
        ),
    ),
    "Windows": (
        "\r\n  - instance_type: ml.p5.48xlarge\r\n    instance_count: 2\r\n    name: 'train'\r\n",
        (
            "\r\n  - instance_type: ml.p5.48xlarge\r\n    instance_count: 2\r\n"
            f"    name: 'train'\r\n    training_plan_arn: {ARN}\r\n"
        ),
    ),
    "no last line break": (
        "\n- instance_type: ml.p5.48xlarge\n  instance_count: 2\n  name: train",
        (
            "\n- instance_type: ml.p5.48xlarge\n  instance_count: 2\n  name: train\n"
            f"  training_plan_arn: {ARN}"
        ),
    ),
    "an old plan": (
        (
            "\n- {name: train, instance_type: ml.p5.48xlarge, instance_count: 2,\n"
            f'   training_plan_arn: "{ARN}-old"}}\n'
        ),
        (
            "\n- {name: train, instance_type: ml.p5.48xlarge, instance_count: 2,\n"
            f'   training_plan_arn: "{ARN}"}}\n'
        ),
    ),
    "JSON": (
        ' [{"name": "train", "instance_type": "ml.p5.48xlarge", "instance_count": 2}]\n',
        (
            f' [{{"name": "train", "training_plan_arn": "{ARN}", "instance_type": "ml.p5.48xlarge",'
            ' "instance_count": 2}]\n'
        ),
    ),
    "an alias": (
        (
            "\n- {name: &n train, instance_type: ml.p5.48xlarge, instance_count: 2,\n"
            f"   training_plan_arn: &p {ARN}-old}}\n"
            "- {name: other, instance_type: ml.p5.48xlarge, instance_count: 1,"
            " training_plan_arn: *p}\n"
        ),
        None,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_other_byte_of_the_file_stays(user: User, form: str) -> None:
    before, after = FORMS[form]
    path = user.folder / "demo.yaml"
    path.write_bytes((HEAD + before).encode())

    said = user.types("capacity", "-f", "demo.yaml", "--write", f"train={ARN}")

    assert said.code == (2 if after is None else 0), said.err
    assert path.read_bytes() == (HEAD + (before if after is None else after)).encode()
