// The results of this browser: watch.js brings the list; here it is drawn, and its buttons do something. The ids of the jobs are in the
// browser's storage, so that a page that was loaded again has them, too. "ls-watch" asks watch.js to open a job, "ls-show" to show HTML.
const place = element.querySelector(".ls-gallery");
const chosen = new Set(); // ids
const tell = (name, detail) => document.dispatchEvent(new CustomEvent(name, { detail }));
const items = () => [...place.querySelectorAll("li")];

function update() {
  const done = items().filter((item) => item.querySelector("[type=checkbox]"));
  const ids = done.map((item) => item.dataset.job).filter((id) => chosen.has(id));
  for (const item of done) item.querySelector("[type=checkbox]").checked = chosen.has(item.dataset.job);
  const compare = place.querySelector("[data-compare]");
  if (!compare) return;
  compare.disabled = ids.length !== 2;
  const all = place.querySelector("[data-all]");
  const wanted = ids.length ? ids : done.map((item) => item.dataset.job);
  all.hidden = !wanted.length;
  all.href = `results.zip?${wanted.map((id) => `job=${encodeURIComponent(id)}`).join("&")}`;
  all.textContent = ids.length ? `Download ${ids.length}` : "Download all";
}

document.addEventListener("ls-gallery", ({ detail }) => {
  const focused = place.contains(document.activeElement) && document.activeElement;
  const path = focused && [focused.closest("li")?.dataset.job, focused.dataset.act];
  place.innerHTML = detail.html;
  for (const time of place.querySelectorAll("time")) {
    time.textContent = new Date(1000 * Number(time.dataset.seconds)).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }
  update();
  if (path?.[1]) items().find((item) => item.dataset.job === path[0])?.querySelector(`[data-act="${path[1]}"]`)?.focus();
});

element.addEventListener("change", (event) => {
  const id = event.target.closest("li")?.dataset.job;
  if (!id) return;
  event.target.checked ? chosen.add(id) : chosen.delete(id);
  update();
});

element.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  const item = button?.closest("li");
  const job = item?.dataset.job;
  if (button?.matches("[data-compare]")) {
    const pair = items().map((one) => one.dataset.job).filter((id) => chosen.has(id));
    const html = await server.compare_jobs(pair);
    if (html) tell("ls-show", { html });
  }
  if (!job) return;
  if (button.dataset.act === "open") tell("ls-watch", { job });
  if (button.dataset.act === "use") trigger("select", { job });
  if (button.dataset.act === "delete" && confirm(`Delete ${item.querySelector("b").textContent}?`)) {
    chosen.delete(job);
    await server.remove_job(job);
    tell("ls-removed", { job });
  }
});
