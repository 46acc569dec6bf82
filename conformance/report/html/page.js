"use strict";

// The theme: the button names what it switches to, whatever the system prefers.
const root = document.documentElement;
const theme = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
system.addEventListener("change", nameTheme);
nameTheme();
theme.hidden = false;

// The filters: a row or a story is shown where it has the words, the chapter and a status.
const form = document.getElementById("filters");
const words = document.getElementById("words");
const chapter = document.getElementById("chapter");
const count = document.getElementById("count");
const chips = [...form.querySelectorAll("[aria-pressed]")];
const bodies = [...document.querySelectorAll("tbody[data-chapter]")];
const stories = [...document.querySelectorAll("article[data-chapter]")];

function matches(item, itsChapter, wanted) {
  return words.value.toLowerCase().split(/\s+/).every((word) => item.dataset.text.includes(word))
    && (!chapter.value || chapter.value === itsChapter)
    && (!wanted.length || item.dataset.status.split(" ").some((each) => wanted.includes(each)));
}

function filter() {
  const wanted = chips
    .filter((chip) => chip.getAttribute("aria-pressed") === "true")
    .map((chip) => chip.dataset.status);
  let shown = 0, all = 0;
  for (const body of bodies) {
    const rows = [...body.querySelectorAll("tr[data-text]")];
    const kept = rows.filter((row) => {
      row.hidden = !matches(row, body.dataset.chapter, wanted);
      return !row.hidden;
    });
    body.hidden = !kept.length;
    shown += kept.length;
    all += rows.length;
  }
  for (const story of stories) story.hidden = !matches(story, story.dataset.chapter, wanted);
  count.textContent = shown === all ? `${all} clauses` : `${shown} of ${all} clauses`;
}

for (const chip of chips) {
  chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") !== "true");
    filter();
  });
}
form.addEventListener("submit", (event) => event.preventDefault());
words.addEventListener("input", filter);
chapter.addEventListener("change", filter);
filter();
form.hidden = false;
