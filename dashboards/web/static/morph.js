// Make an element equal to another by touching only what differs, so that focus, hover and scroll stay.
const KEPT = new Set(["data-kept", "open", "tabindex"]); // what a reader has unfolded stays so

export function morph(old, fresh) {
  if (typeof fresh === "string") {
    const box = document.createElement("template");
    box.innerHTML = fresh;
    fresh = box.content.firstElementChild;
    if (!fresh) return;
  }
  same(old, fresh);
}

function same(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id ?? "") !== (fresh.id ?? "")) {
    old.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.hasAttribute("data-kept") || old.isEqualNode(fresh)) return;
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !KEPT.has(name)) old.removeAttribute(name);
  // A running clock keeps its text: the page counts on by itself.
  if (old.hasAttribute("data-since") || old.hasAttribute("data-age")) return;
  const before = [...old.childNodes];
  const after = [...fresh.childNodes];
  after.forEach((node, index) => {
    if (index < before.length) same(before[index], node);
    else old.appendChild(document.importNode(node, true));
  });
  for (const node of before.slice(after.length)) node.remove();
}
