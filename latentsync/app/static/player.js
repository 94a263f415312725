// Plays original and result as one: the result leads, the original follows it without sound.
const one = (selector) => element.querySelector(selector);
const after = () => one("video[data-after]");
const before = () => one("video[data-before]");
const SHORT = 10; // seconds under which tenths are shown
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const SLIP = 0.1; // seconds that the original may be off before it is set right

function show() {
  const video = after();
  if (!video || !one("[data-seek]")) return;
  const length = Number.isFinite(video.duration) ? video.duration : 0;
  const shown = (seconds) => (length < SHORT ? seconds.toFixed(1) : clock(seconds));
  one("[data-time]").textContent = `${shown(video.currentTime)} / ${shown(length)}${length < SHORT ? " s" : ""}`;
  if (length) one("[data-seek]").value = String(Math.round((1000 * video.currentTime) / length));
  one("[data-seek]").setAttribute("aria-valuetext", `${video.currentTime.toFixed(1)} of ${length.toFixed(1)} seconds`);
  one("[data-play]").setAttribute("aria-label", video.paused ? "Play" : "Pause");
  one("[data-play]").classList.toggle("ls-playing", !video.paused);
  one("[data-mute]").setAttribute("aria-pressed", String(video.muted));
}

function follow() {
  const lead = after();
  const other = before();
  if (!lead || !other) return;
  if (!other.seeking && Math.abs(other.currentTime - lead.currentTime) > SLIP) other.currentTime = lead.currentTime;
  if (lead.paused !== other.paused && !lead.ended) lead.paused ? other.pause() : other.play().catch(() => {});
  if (!lead.paused) requestAnimationFrame(follow);
}

element.addEventListener("click", (event) => {
  const video = after();
  if (!video) return;
  if (event.target.closest("[data-play], .ls-pair")) video.paused ? video.play() : video.pause();
  if (event.target.closest("[data-mute]")) video.muted = !video.muted;
  show();
});

element.addEventListener("input", (event) => {
  const video = after();
  if (!event.target.matches("[data-seek]") || !video || !video.duration) return;
  video.currentTime = (Number(event.target.value) / 1000) * video.duration;
  follow();
});

for (const name of ["timeupdate", "loadedmetadata", "play", "pause", "ended", "seeked", "volumechange"]) {
  element.addEventListener(
    name,
    (event) => {
      if (event.target !== after()) return;
      show();
      if (name !== "timeupdate") follow();
      if (name === "ended") before()?.pause();
    },
    true,
  );
}
