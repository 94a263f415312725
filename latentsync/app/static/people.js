// Draws the people that were found as boxes on the frames in which they were seen, and keeps who is chosen in props.value.chosen.
const group = element.querySelector(".ls-people");
const line = element.querySelector(".ls-who");

const shots = (point) => new Set(point.split("|").map((sighting) => sighting.split("@")[1]).filter(Boolean));

function draw() {
  const { people = [], frames = [], chosen = [] } = props.value || {};
  group.replaceChildren(
    ...frames.map((address, number) => {
      const frame = document.createElement("div");
      const picture = document.createElement("img");
      picture.src = address;
      picture.alt = "";
      frame.append(picture);
      people.forEach((person, index) => {
        if (person.frame !== number) return;
        const button = document.createElement("button");
        const label = document.createElement("span");
        const [x, y, width, height] = person.place.map((share) => `${100 * share}%`);
        button.type = "button";
        button.dataset.index = index;
        button.setAttribute("aria-pressed", String(chosen.includes(person.point)));
        button.setAttribute("aria-label", person.label);
        Object.assign(button.style, { left: x, top: y, width, height });
        label.textContent = index + 1;
        button.append(label);
        frame.append(button);
      });
      return frame;
    }),
  );
  const names = people.filter((person) => chosen.includes(person.point)).map((person) => person.label);
  line.textContent = names.length ? `${names.join(" and ")} will speak.` : "Who shall speak? Nobody chosen: the largest face.";
}

group.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { people, chosen } = props.value;
  const point = people[Number(button.dataset.index)].point;
  const own = shots(point); // one person a shot: who was seen beside this one is not chosen any more
  const others = chosen.filter((other) => other !== point && ![...shots(other)].some((time) => own.has(time)));
  props.value = { ...props.value, chosen: chosen.includes(point) ? chosen.filter((other) => other !== point) : [...others, point] };
  draw();
  group.querySelector(`[data-index="${button.dataset.index}"]`).focus();
});

watch("value", draw);
draw();
