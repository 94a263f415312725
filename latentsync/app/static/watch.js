// Watches a job of the server: asks how it is, again and again, draws what is answered, and waits where nothing is. The job is in the
// page's address, so that the page finds it again; `props.value` says what to watch: {page, job, idleSeconds, notice}. The jobs that this
// browser has asked for are in its storage; the server's answer about them goes to gallery.js.
const place = element.querySelector(".ls-view");
const WORKING = 600; // milliseconds between two questions while a job runs
const PATIENCE = 10000; // milliseconds after which a question counts as lost
const NAME = document.title;
let watched = null; // the id of a job that runs
let shown = 0; // frames, in the last picture
let loaded; // the model, last heard
let listed = ""; // the version of the list, last heard
let isBusy = false; // whether a job of the list runs or waits
let timer;
const EMPTY = place.innerHTML;
const STORE = "latentsync-jobs";

function stored() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) || [];
  } catch {
    return []; // the browser keeps nothing for us
  }
}

function store(jobs) {
  try {
    localStorage.setItem(STORE, JSON.stringify(jobs));
  } catch {
    // the list then lasts as long as nothing is asked
  }
}

const remember = (...jobs) => store([...new Set([...jobs, ...stored()])]);

const leaving = (event) => event.preventDefault();

function setWatched(job) {
  watched = job;
  document.body.classList.toggle("ls-working", job !== null);
  window[job ? "addEventListener" : "removeEventListener"]("beforeunload", leaving);
}

function setAddress(job) {
  const address = new URL(location.href);
  if (job) address.searchParams.set("job", job);
  else address.searchParams.delete("job");
  history.replaceState(history.state, "", address);
}

function draw(html) {
  const fresh = document.createElement("div");
  fresh.innerHTML = html;
  const [now, next] = [place, fresh].map((around) => around.querySelector(".ls-progress"));
  if (!now || !next) return place.replaceChildren(...fresh.childNodes);
  now.dataset.stage = next.dataset.stage; // what changes, alone: a bar that moves, a picture that stays
  for (const part of now.querySelectorAll("[data-part]")) {
    const other = next.querySelector(`[data-part="${part.dataset.part}"]`);
    if (part.innerHTML !== other.innerHTML) part.innerHTML = other.innerHTML;
  }
  const [bar, target] = [now, next].map((around) => around.querySelector("[role=progressbar]"));
  for (const { name, value } of target.attributes) bar.setAttribute(name, value);
  bar.firstElementChild.className = target.firstElementChild.className;
  bar.firstElementChild.style.width = target.firstElementChild.style.width;
}

function take(answer) {
  if (answer.loaded !== loaded && loaded !== undefined) trigger("select");
  loaded = answer.loaded;
  if (answer.list !== undefined) {
    listed = answer.version;
    isBusy = answer.isBusy;
    store(stored().filter((id) => !answer.unknown.includes(id)));
    document.dispatchEvent(new CustomEvent("ls-gallery", { detail: { html: answer.list } }));
  }
  if (!watched) return;
  draw(answer.html);
  document.title = `${answer.title} · ${NAME}`;
  if (answer.picture) {
    shown = answer.shown;
    const picture = place.querySelector(".ls-preview");
    picture.src = answer.picture;
    picture.hidden = false;
  }
  if (answer.end) {
    setWatched(null);
    if (matchMedia("(max-width: 760px)").matches) element.scrollIntoView({ behavior: "smooth", block: "start" });
  }
}

async function ask() {
  clearTimeout(timer);
  const { page, idleSeconds } = props.value;
  const job = watched;
  const lost = new Promise((resolve) => setTimeout(resolve, PATIENCE));
  const answer = await Promise.race([server.watch_job({ page, job, shown, jobs: stored(), version: listed }), lost]);
  if (job !== watched) return; // another one is asked about already
  place.classList.toggle("ls-lost", answer === undefined);
  if (answer !== undefined) take(answer);
  clearTimeout(timer);
  timer = setTimeout(ask, watched ? WORKING : isBusy || !loaded ? 5 * WORKING : idleSeconds * 1000);
}

function begin({ page, job, notice } = props.value || {}) {
  if (!page) return;
  if (notice) draw(notice);
  if (job) remember(job);
  setAddress(job);
  setWatched(job);
  shown = 0;
  if (!job) document.title = NAME;
  ask();
}

document.addEventListener("click", async (event) => {
  if (!watched || !event.target.closest("#stop")) return;
  await server.stop_job(watched);
  ask();
});
document.addEventListener("ls-watch", ({ detail }) => {
  begin({ page: props.value.page, job: detail.job });
  element.scrollIntoView({ behavior: "smooth", block: "nearest" });
});
document.addEventListener("ls-show", ({ detail }) => {
  begin({ page: props.value.page, job: null, notice: detail.html });
  element.scrollIntoView({ behavior: "smooth", block: "nearest" });
});
document.addEventListener("ls-removed", ({ detail }) => {
  const isShown = new URL(location.href).searchParams.get("job") === detail.job;
  store(stored().filter((id) => id !== detail.job));
  if (isShown) begin({ page: props.value.page, job: null, notice: EMPTY });
  else ask();
});
document.addEventListener("visibilitychange", () => document.hidden || (props.value?.page && ask()));

watch("value", () => begin());
begin();

