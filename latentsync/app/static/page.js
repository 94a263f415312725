() => {
  // What Gradio's own boxes do not take goes to the buttons beside them: photos and other videos as the video, videos as the sound.
  const boxes = { video: /^video\//, audio: /^audio\// };
  document.addEventListener(
    "drop",
    (event) => {
      const name = Object.keys(boxes).find((id) => event.target.closest?.(`#${id}`));
      const file = event.dataTransfer?.files[0];
      if (!name || !file || boxes[name].test(file.type)) return;
      const button = document.getElementById(name === "video" ? "any-video" : "any-sound");
      const input = button.previousElementSibling;
      const files = new DataTransfer();
      files.items.add(file);
      event.preventDefault();
      event.stopPropagation();
      input.files = files.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    },
    true,
  );

  // Tells how a job goes to who does not see it: at the beginning of each stage, at every quarter of it, and at the end.
  const speaker = document.createElement("p");
  speaker.className = "ls-spoken";
  speaker.setAttribute("role", "status");
  document.body.append(speaker);
  const outcome = document.getElementById("outcome");
  const say = () => {
    const stage = outcome.querySelector(".ls-progress h3")?.firstChild?.textContent.trim();
    const percent = Number(outcome.querySelector("[role=progressbar]")?.getAttribute("aria-valuenow") || 0);
    const end = outcome.querySelector(".ls-report h3, .ls-stopped p")?.textContent;
    const text = stage ? `${stage}${percent >= 25 ? `, ${percent - (percent % 25)} %` : ""}` : end || "";
    if (text !== speaker.textContent) speaker.textContent = text;
  };
  new MutationObserver(say).observe(outcome, { childList: true, subtree: true, characterData: true, attributes: true });

  // Make and Stop take each other's place: who pressed one by the keyboard finds the focus on the other.
  let last = "";
  document.addEventListener("focusin", (event) => (last = event.target.id));
  const keep = () => {
    if (!["go", "stop"].includes(last) || (document.activeElement && document.activeElement !== document.body)) return;
    const shown = ["go", "stop"].map((id) => document.getElementById(id)).find((button) => button?.offsetParent);
    shown?.focus({ preventScroll: true });
  };
  new MutationObserver(keep).observe(document.querySelector(".ls-actions"), { childList: true, subtree: true, attributes: true });
}
