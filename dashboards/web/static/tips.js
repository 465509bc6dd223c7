// What lies under the pointer of a chart, in words. The same words stand in tables for those who have no pointer.
export function showTips(box) {
  if (!box) return;
  let shown = null;

  function hide() {
    shown = null;
    box.hidden = true;
  }

  function show(event) {
    const mark = event.target.closest?.("[data-tip]");
    if (!mark) return hide();
    if (mark !== shown) {
      shown = mark;
      box.textContent = mark.dataset.tip;
      box.hidden = false;
    }
    const { offsetWidth: width, offsetHeight: height } = box;
    const left = Math.min(Math.max(8, event.clientX - width / 2), innerWidth - width - 8);
    const above = event.clientY - height - 14;
    box.style.transform = `translate(${left}px, ${above > 4 ? above : event.clientY + 18}px)`;
  }

  addEventListener("pointermove", show, { passive: true });
  addEventListener("pointerdown", show, { passive: true });
  addEventListener("scroll", hide, { passive: true, capture: true });
}
