/** Arrow keys in a list of buttons, which is one stop of the Tab key. */

/** @param {HTMLElement} list */
const buttonsOf = (list) => /** @type {HTMLElement[]} */ ([...list.querySelectorAll("button")]);

/** Make `current` the list's only stop. @param {HTMLElement} list @param {HTMLElement} [current] */
export function setStop(list, current) {
  const buttons = buttonsOf(list);
  const stop = current && buttons.includes(current) ? current : buttons[0];
  for (const button of buttons) button.tabIndex = button === stop ? 0 : -1;
}

/**
 * @param {HTMLElement} list
 * @param {(button: HTMLElement, key: string) => HTMLElement | null | undefined} [across] where Up
 *   and Down lead; without it, to the next row of a grid
 */
export function arrowKeys(list, across = (button, pressed) => neighbour(list, button, pressed)) {
  list.addEventListener("keydown", (event) => {
    const button = /** @type {HTMLElement} */ (event.target).closest("button");
    if (!button || event.altKey || event.ctrlKey || event.metaKey) return;
    const buttons = buttonsOf(list);
    const at = buttons.indexOf(button);
    const places = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 };
    let goal;
    if (event.key in places) goal = buttons[places[event.key]];
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") goal = across(button, event.key);
    else return;
    event.preventDefault();
    goal?.focus();
  });
  list.addEventListener("focusin", (event) => {
    const button = /** @type {HTMLElement} */ (event.target).closest("button");
    if (button) setStop(list, button);
  });
}

/** The button above or below, in a grid or in one row or column. */
function neighbour(list, button, pressed) {
  const buttons = buttonsOf(list);
  const perRow = buttons.filter((other) => other.offsetTop === buttons[0].offsetTop).length;
  return buttons[buttons.indexOf(button) + (pressed === "ArrowUp" ? -perRow : perRow)];
}
