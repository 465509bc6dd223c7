// The live feed: pieces of HTML by id, laid over what stands on the page.
import { morph } from "./morph.js";

const FIRST_RETRY_SECS = 1;
const LONGEST_RETRY_SECS = 15;
const OVER = 1008;

export function follow({ base, topic, heard, lost }) {
  let retry = FIRST_RETRY_SECS;
  let timer = 0;
  let socket = null;

  function connect() {
    clearInterval(timer);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}${base}/feed?topic=${topic}`);
    socket.addEventListener("message", (event) => {
      retry = FIRST_RETRY_SECS;
      const message = JSON.parse(event.data);
      if (message.reload) refresh();
      else lay(message.fragments ?? {});
      heard(message.generated);
    });
    socket.addEventListener("close", (event) => {
      if (event.code === OVER) location.reload(); // the door asks who it is
      else wait();
    });
  }

  // A refused handshake does not say why: after a restart the session may be over.
  async function ask() {
    const answer = await fetch(`${base}/api/v1/mutes`).catch(() => null);
    if (answer?.status === 401) location.reload();
  }

  function wait() {
    // Spread the browsers of a hall, so that a restarted server is not asked by all at once.
    let left = Math.ceil(retry * (0.7 + 0.6 * Math.random()));
    if (retry > FIRST_RETRY_SECS) ask();
    retry = Math.min(LONGEST_RETRY_SECS, retry * 1.7);
    lost(left);
    timer = setInterval(() => {
      left -= 1;
      lost(left);
      if (left <= 0) connect();
    }, 1000);
  }

  addEventListener("online", () => { if (socket?.readyState === WebSocket.CLOSED) connect(); });
  connect();
}

function lay(fragments) {
  for (const [id, html] of Object.entries(fragments)) {
    const place = document.getElementById(id);
    if (place) morph(place, html);
  }
}

// Take the whole page anew without losing where its reader is.
export async function refresh(address = location.href) {
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  if (answer.redirected) location.reload(); // the door asks who it is
  if (!answer.ok || answer.redirected) return false;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const main = fresh.getElementById("main");
  if (!main) return false;
  morph(document.getElementById("main"), main);
  document.title = fresh.title;
  document.body.dataset.refresh = fresh.body.dataset.refresh;
  return true;
}
