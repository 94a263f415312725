// Plays two videos as one: the right one leads, the left one follows it. All that is chosen stands in the buttons' aria-pressed.
const one = (selector) => element.querySelector(selector);
const after = () => one("video[data-after]");
const before = () => one("video[data-before]");
const isOn = (name) => one(`[data-look=${name}]`)?.getAttribute("aria-pressed") === "true";
const SHORT = 10; // seconds under which tenths are shown
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const SLIP = 0.1; // seconds that the left one may be off while it plays, before it is set right
const PHONE = matchMedia("(max-width: 760px)");
const STILL = 0.004; // the same while both stand

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
  zoom();
}

function follow() {
  const lead = after();
  const other = before();
  if (!lead || !other) return;
  const allowed = lead.paused ? STILL : SLIP;
  if (!other.seeking && Math.abs(other.currentTime - lead.currentTime) > allowed) other.currentTime = lead.currentTime;
  if (lead.paused !== other.paused && !lead.ended) lead.paused ? other.pause() : other.play().catch(() => {});
  zoom();
  if (!lead.paused) requestAnimationFrame(follow);
}

// Set what the buttons say: whose sound is heard, whether the videos lie one over the other, whether they begin again.
function apply() {
  const silent = one("[data-mute]").getAttribute("aria-pressed") === "true";
  after().muted = silent || isOn("sound");
  before().muted = silent || !isOn("sound");
  after().loop = isOn("loop");
  one(".ls-pair").classList.toggle("ls-wipe", isOn("wipe"));
  one("[data-wipe]").hidden = !isOn("wipe");
  one(".ls-pair").style.setProperty("--wipe", `${one("[data-wipe]").value}%`);
  show();
}

// Enlarge both pictures around the mouth of this moment; data-faces: [from second, x, y (shares of the picture), enlargement].
function zoom() {
  const faces = isOn("mouth") ? JSON.parse(one(".ls-player").dataset.faces) : [];
  const face = faces.filter(([from]) => from <= after().currentTime + 0.001).pop() || faces[0];
  for (const video of [before(), after()]) {
    if (!face || !video.videoWidth) {
      video.style.transform = "";
      continue;
    }
    const [, x, y, scale] = face;
    const box = [video.clientWidth, video.clientHeight];
    const picture = [video.videoWidth, video.videoHeight];
    const fit = Math.min(box[0] / picture[0], box[1] / picture[1]);
    const moves = [x, y].map((share, axis) => {
      const size = fit * picture[axis];
      const edge = (box[axis] - size) / 2; // the picture lies in the middle of its box
      const half = Math.min(box[axis] / scale, size) / 2; // of what is seen of it
      const middle = edge + Math.min(Math.max(share * size, half), size - half);
      return box[axis] / 2 - scale * middle;
    });
    video.style.transform = `translate(${moves[0].toFixed(2)}px, ${moves[1].toFixed(2)}px) scale(${scale})`;
  }
}

function step(frames) {
  const video = after();
  const rate = Number(one(".ls-player").dataset.fps);
  video.pause();
  const place = Math.floor(video.currentTime * rate + 0.01) + frames;
  video.currentTime = Math.min(Math.max(0, (place + 0.5) / rate), Math.max(0, video.duration - 0.5 / rate)); // the middle of a frame
}

element.addEventListener("click", (event) => {
  const video = after();
  if (!video) return;
  const button = event.target.closest("button");
  const isPicture = event.target.closest(".ls-pair") && !isOn("wipe");
  if (isPicture || button?.matches("[data-play]")) video.paused ? video.play() : video.pause();
  if (button?.matches("[data-mute], [data-look]")) {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    apply();
  }
  if (button?.matches("[data-step]")) step(Number(button.dataset.step));
  if (button?.matches("[data-full]")) document.fullscreenElement ? document.exitFullscreen() : one(".ls-player").requestFullscreen?.();
  show();
});

document.addEventListener("keydown", (event) => {
  const frames = { ",": -1, ".": 1 }[event.key];
  const isWriting = event.target.matches?.("textarea, [contenteditable], input:not([type=range], [type=radio], [type=checkbox])");
  if (!frames || isWriting || !after() || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  step(frames);
});

element.addEventListener("input", (event) => {
  const video = after();
  if (!video) return;
  if (event.target.matches("[data-wipe]")) one(".ls-pair").style.setProperty("--wipe", `${event.target.value}%`);
  if (!event.target.matches("[data-seek]") || !video.duration) return;
  video.currentTime = (Number(event.target.value) / 1000) * video.duration;
  follow();
});

new ResizeObserver(() => after() && zoom()).observe(element);
for (const name of ["timeupdate", "loadedmetadata", "play", "pause", "ended", "seeked"]) {
  element.addEventListener(
    name,
    (event) => {
      if (event.target !== after()) return;
      if (name === "loadedmetadata" && PHONE.matches && !isOn("wipe")) {
        one("[data-look=wipe]").setAttribute("aria-pressed", "true"); // two pictures, one below the other, do not fit
        apply();
      }
      show();
      if (name !== "timeupdate") follow();
      if (name === "ended") before()?.pause();
    },
    true,
  );
}
document.addEventListener("fullscreenchange", () => {
  const button = one("[data-full]");
  if (button) button.textContent = document.fullscreenElement ? "Leave full screen" : "Full screen";
  if (after()) zoom();
});
