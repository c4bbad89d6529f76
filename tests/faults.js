width => {
  const found = [], gap = 1;
  const inside = (a, b) =>  // a in b
    a.left >= b.left - gap && a.right <= b.right + gap && a.top >= b.top - gap && a.bottom <= b.bottom + gap;
  const meet = (a, b) =>
    a.left + gap < b.right && b.left + gap < a.right && a.top + gap < b.bottom && b.top + gap < a.bottom;
  const words = node => node.textContent.trim().replace(/\s+/g, " ").slice(0, 60);
  const rgb = text => (text.match(/[\d.]+/g) || []).map(Number);
  const light = text => rgb(text).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const opaque = text => text.startsWith("rgb") && (rgb(text)[3] ?? 1) > 0.5;
  const background = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (opaque(colour)) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? "rgb(18, 18, 18)" : "rgb(255, 255, 255)";
  };

  const root = document.documentElement;
  if (root.scrollWidth > width) found.push(`wider than the window: ${root.scrollWidth} > ${width}`);

  // text of HTML: in the window, not cut, not over other text, legible
  const lines = [];
  const texts = document.createTreeWalker(document.body || root, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode());) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest("svg, style, title, .hidden")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const rects = [...range.getClientRects()].filter(r => r.width > 1 && r.height > 1);
    for (const rect of rects) {
      if (rect.left < -gap || rect.right > width + gap) found.push(`outside of the window: ${words(node)}`);
      for (let box = element; box; box = box.parentElement) {
        const clips = getComputedStyle(box).overflowX !== "visible" && box !== document.body && box !== root;
        if (clips && !inside(rect, box.getBoundingClientRect())) found.push(`cut: ${words(node)}`);
      }
      lines.push([rect, node]);
    }
    if (rects.length && contrast(getComputedStyle(element).color, background(element)) < 4.5)
      found.push(`poor contrast: ${words(node)}`);
  }
  lines.forEach(([a, one], n) => {
    for (const [b, two] of lines.slice(n + 1))
      if (one !== two && meet(a, b)) found.push(`overlap: ${words(one)} / ${words(two)}`);
  });

  // pictures: text in its own shape, shapes apart or in each other, no line through a text
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    if (svg.parentElement?.closest("svg") || frame.width < 2) continue;
    const nodes = [...svg.querySelectorAll("g")].filter(g => [...g.children].some(c => c.classList.contains("shape")))
      .map(g => {
        const shape = [...g.children].find(c => c.classList.contains("shape"));
        const text = [...g.children].find(c => c.tagName === "text");
        return {shape, rect: shape.getBoundingClientRect(), text, at: text?.getBoundingClientRect()};
      });
    for (const {shape, rect, text, at} of nodes) {
      if (!inside(rect, frame)) found.push(`outside of the picture: ${words(text || shape)}`);
      if (!at) continue;
      if (!inside(at, rect)) found.push(`longer than its box: ${words(text)}`);
      const fills = [...shape.querySelectorAll("*")].map(s => getComputedStyle(s).fill).filter(opaque);
      if (fills.length && contrast(getComputedStyle(text).fill, fills[fills.length - 1]) < 4.5)
        found.push(`poor contrast: ${words(text)}`);
      for (const other of nodes) {
        if (other.shape === shape) continue;
        if (!inside(rect, other.rect) && meet(at, other.rect)) found.push(`text over a box: ${words(text)}`);
        const apart = !meet(rect, other.rect) || inside(rect, other.rect) || inside(other.rect, rect);
        if (!apart) found.push(`boxes overlap: ${words(text)} / ${words(other.text || other.shape)}`);
      }
    }
    for (const path of svg.querySelectorAll("path.connection")) {
      const way = path.getScreenCTM();
      for (let n = 0; n <= 100; n++) {
        const point = path.getPointAtLength(path.getTotalLength() * n / 100).matrixTransform(way);
        const hit = nodes.find(({at}) => at && point.x > at.left && point.x < at.right && point.y > at.top && point.y < at.bottom);
        if (hit) { found.push(`a line through: ${words(hit.text)}`); break; }
      }
    }
  }
  return [...new Set(found)];
}
