// Choosing place and time, and looking nearer: both only write an address that can be shared.
export function filters() {
  document.addEventListener("change", (event) => {
    const form = event.target.closest("[data-filter]");
    if (!form) return;
    const chosen = new FormData(form);
    const dated = event.target.type === "date";
    if (dated && !(chosen.get("from") && chosen.get("to"))) return;
    const query = new URLSearchParams();
    for (const name of ["at", "product"]) if (chosen.get(name)) query.set(name, chosen.get(name));
    const [kind, ...rest] = String(chosen.get("time") ?? "").split(":");
    if (dated || (event.target.name !== "time" && chosen.get("from") && chosen.get("to"))) {
      query.set("from", chosen.get("from"));
      query.set("to", chosen.get("to"));
    } else if (rest.length) {
      query.set(kind, rest.join(":"));
    }
    const text = query.toString().replaceAll("%2F", "/");
    location.assign(form.action.split("?")[0] + (text ? `?${text}` : ""));
  });
}

export function zooms(refresh) {
  let box = null;
  let cell = null;
  let from = 0;
  let shown = location.pathname + location.search;

  const share = (event) => {
    const { left, width } = cell.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - left) / width));
  };
  addEventListener("pointerdown", (event) => {
    cell = event.target.closest?.("[data-zoomable]");
    if (!cell || event.button) return (cell = null);
    from = share(event);
    box = document.createElement("div");
    box.className = "zoom-box";
    cell.append(box);
  });
  addEventListener("pointermove", (event) => {
    if (!cell) return;
    const to = share(event);
    box.style.left = `${Math.min(from, to) * 100}%`;
    box.style.width = `${Math.abs(to - from) * 100}%`;
  });
  addEventListener("pointerup", async (event) => {
    if (!cell) return;
    const ends = [from, share(event)].sort((one, other) => one - other);
    const whole = cell.closest("[data-zoom-from]").dataset;
    const start = Number(whole.zoomFrom);
    const length = Number(whole.zoomTo) - start;
    box.remove();
    cell = null;
    if ((ends[1] - ends[0]) * length < 10 || ends[1] - ends[0] < 0.005) return;
    const address = new URL(location.href);
    address.searchParams.set("since", (start + ends[0] * length).toFixed(0));
    address.searchParams.set("until", (start + ends[1] * length).toFixed(0));
    const text = address.href.replaceAll("%2F", "/");
    if (await refresh(text)) {
      history.pushState({}, "", text);
      shown = location.pathname + location.search;
    } else {
      location.assign(text);
    }
  });
  addEventListener("pointercancel", () => { box?.remove(); cell = null; });
  // A jump within the page is a step in the history, too, and changes nothing that is shown.
  addEventListener("popstate", () => {
    if (location.pathname + location.search !== shown) location.reload();
  });
}
