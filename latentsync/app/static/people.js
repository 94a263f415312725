// Draws the people that were found as buttons, and keeps which of them are pressed in props.value.chosen.
const group = element.querySelector(".ls-people");

function draw() {
  const { people = [], chosen = [] } = props.value || {};
  group.replaceChildren(
    ...people.map((person, index) => {
      const button = document.createElement("button");
      const picture = document.createElement("img");
      const label = document.createElement("span");
      button.type = "button";
      button.dataset.index = index;
      button.setAttribute("aria-pressed", String(chosen.includes(person.point)));
      picture.src = person.image;
      picture.alt = "";
      label.textContent = person.label;
      button.append(picture, label);
      return button;
    }),
  );
}

group.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { people, chosen } = props.value;
  const point = people[Number(button.dataset.index)].point;
  props.value = { people, chosen: chosen.includes(point) ? chosen.filter((other) => other !== point) : [...chosen, point] };
  draw();
  group.querySelector(`[data-index="${button.dataset.index}"]`).focus();
});

watch("value", draw);
draw();
