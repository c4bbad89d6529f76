"""Checks of the lifecycle folder, before a node runs its scripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperpod_eks.config.lifecycle import (
    LARGE,
    check_lifecycle,
    lifecycle_files,
    packaged_lifecycle,
)

GOOD = "#!/bin/bash\nset -e\necho hello\n"
OLD = "/etc/eks/containerd/containerd-config.toml"
CRLF = (
    "on_create.sh:2 ends in CR LF, which bash takes for a command; convert it with"
    r" `sed -i 's/\r$//' on_create.sh`"
)
AL2 = (
    f"on_create.sh:2 uses {OLD}, which Amazon Linux 2023 nodes do not have; use"
    " /etc/containerd/config.toml there, or test with `[ -f … ]` first"
)


def check(tmp_path: Path, entry: str = "on_create.sh", **files: str | bytes) -> list[str]:
    """Return errors about a folder with these files (`__` is a dot), without the folder's name."""
    for name, content in files.items():
        file = tmp_path / name.replace("__", ".").replace("SLASH", "/")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    errors, _ = check_lifecycle(tmp_path, entry)
    return [error.replace(f"{tmp_path}/", "") for error in errors]


def test_the_scripts_that_come_with_the_tool_are_good() -> None:
    assert check_lifecycle(packaged_lifecycle(), "on_create.sh") == ([], [])


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    errors, _ = check_lifecycle(tmp_path / "gone", "on_create.sh")
    assert errors == [f"{tmp_path}/gone does not exist; choose the folder that holds on_create.sh"]
    (tmp_path / "file").write_text("")
    errors, _ = check_lifecycle(tmp_path / "file", "on_create.sh")
    text = f"{tmp_path}/file is a file, not a folder; choose the folder that holds on_create.sh"
    assert errors == [text]


def test_the_entry_script_must_be_there(tmp_path: Path) -> None:
    (error,) = check(tmp_path, setup__sh=GOOD)
    assert error == (
        f"{tmp_path} has no on_create.sh (it holds setup.sh); put it there, or set another entry"
        " script as lifecycle.on_create"
    )
    assert check(tmp_path, "setup.sh") == []


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("", "on_create.sh is empty; write the script or remove the file"),
        ("\n  \n", "on_create.sh is empty; write the script or remove the file"),
        (
            "echo hello\n",
            "on_create.sh:1 is 'echo hello', not a #! line; begin the script with #!/bin/bash",
        ),
        (
            "\n#!/bin/bash\n",
            "on_create.sh:1 is '', not a #! line; begin the script with #!/bin/bash",
        ),
        ("#!/bin/bash\necho 1\r\n", CRLF),
        (f"#!/bin/bash\nsed -i 's/x/y/' {OLD}\n", AL2),
    ],
)
def test_what_would_fail_on_the_node_is_told(tmp_path: Path, content: str, answer: str) -> None:
    assert check(tmp_path, on_create__sh=content) == [answer]


@pytest.mark.parametrize(
    "content",
    [
        "#!/bin/bash\n# sed /etc/eks/containerd/containerd-config.toml\n",
        "#!/bin/bash\nf=/etc/eks/containerd/containerd-config.toml\ng=/etc/containerd/config.toml\n",
        "#!/bin/bash\nif [ -f /etc/eks/containerd/containerd-config.toml ]; then :; fi\n",
        "#!/usr/bin/env python3\nprint('\\n')\n",
    ],
)
def test_what_works_is_not_refused(tmp_path: Path, content: str) -> None:
    assert check(tmp_path, on_create__sh=content) == []


@pytest.mark.parametrize(
    "call",
    [
        "./main.sh",
        "bash main.sh",
        "bash ./main.sh --now",
        "source main.sh",
        ". ./main.sh",
        "sudo python3 main.py",
        '"$SCRIPT_DIR/main.sh"',
        "if ! ./main.sh; then exit 1; fi",
        "x=$(./main.sh)",
        "true && ./main.sh | tee log",
    ],
)
def test_a_script_that_is_called_must_be_in_the_folder(tmp_path: Path, call: str) -> None:
    name = "main.py" if "python3" in call else "main.sh"
    (error,) = check(tmp_path, on_create__sh=f"#!/bin/bash\n{call}\n")
    assert error.startswith(f"on_create.sh calls {name}, which is not in the folder; add it")
    (tmp_path / name).write_text(GOOD)
    assert check(tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        "curl -o /tmp/main.sh https://example.com/main.sh",
        "/opt/tool/main.sh",
        "bash /opt/tool/main.sh",
        "echo main.sh is next",
        "# ./main.sh",
        "cp main.sh.template /tmp",
    ],
)
def test_other_names_are_none_of_its_files(tmp_path: Path, line: str) -> None:
    assert check(tmp_path, on_create__sh=f"#!/bin/bash\n{line}\n") == []


def test_scripts_may_call_each_other_in_sub_folders(tmp_path: Path) -> None:
    files = {"on_create__sh": "#!/bin/bash\nbash lib/a.sh\n", "libSLASHa__sh": GOOD + "./b.sh\n"}
    (error,) = check(tmp_path, **files)
    assert error.startswith("lib/a.sh calls b.sh, which is not in the folder; add it")
    assert check(tmp_path, libSLASHb__sh=GOOD) == []


def test_a_large_folder_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "on_create.sh").write_text(GOOD)
    with (tmp_path / "model.bin").open("wb") as stream:
        os.ftruncate(stream.fileno(), LARGE + 1)
    errors, (warning,) = check_lifecycle(tmp_path, "on_create.sh")
    assert errors == []
    assert warning.startswith(
        f"lifecycle.path: {tmp_path} holds 10 MiB, which every node downloads"
    )


def test_hidden_files_and_what_lies_outside_are_not_uploaded(tmp_path: Path) -> None:
    folder, outside = tmp_path / "scripts", tmp_path / "outside"
    for place in (folder / ".git", folder / "lib", outside):
        place.mkdir(parents=True)
    (folder / "on_create.sh").write_text("#!/bin/bash\ntrue\n")
    (folder / "lib/a.txt").write_text("a")
    (folder / "link.txt").symlink_to("lib/a.txt")
    for hidden in (".env", ".git/config"):
        (folder / hidden).write_text("secret")
    errors, warnings = check_lifecycle(folder, "on_create.sh")
    assert errors == []
    (warning,) = warnings
    assert "hidden files are not uploaded: .env, .git; rename" in warning
    uploaded = {"on_create.sh", "lib/a.txt", "link.txt"}
    assert set(lifecycle_files(folder)) == uploaded
    (outside / "id_rsa").write_text("secret")
    (folder / "key").symlink_to(outside / "id_rsa")
    (folder / "all").symlink_to(outside)
    (folder / "again").symlink_to("lib")
    (folder / "two\nlines").touch()
    os.mkfifo(folder / "pipe")
    (folder / "stale").symlink_to("gone.sh")
    deep = folder.joinpath(*["x" * 240] * 4)
    deep.mkdir(parents=True)
    errors, _ = check_lifecycle(folder, "on_create.sh")
    assert [error.split(";")[0].removeprefix(f"{folder}/") for error in errors] == [
        "again is a link to a folder, which is not followed",
        "all is a link that leads outside the folder",
        "key is a link that leads outside the folder",
        "pipe is no file, or a link to nothing",
        "stale is no file, or a link to nothing",
        f"{folder}: the name 'two\\nlines' cannot be printed",
        f"{folder}: the name {'x' * 60}… is longer than a key of S3",
    ]
    assert set(lifecycle_files(folder)) - {"two\nlines"} == uploaded
