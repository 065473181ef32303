// One answer and what a person says of it: a thumb, a comment, the answer that it should have been.

import { sendFeedback } from "./server.js";
import { copyOf, show } from "./text.js";

const FORMS = {
  comment: { label: "Your comment", button: "comment", done: "Comment saved" },
  correction: { label: "The answer that it should have been", button: "correct", done: "Correction saved" },
};

export class Answer {
  constructor(title, { onRated = () => {}, onTrouble }) {
    this.element = copyOf("answer-template");
    this.part = (name) => this.element.querySelector(`.${name}`);
    this.text = "";
    this.id = "";
    this.saved = { comment: "", correction: "" };
    this.isBusy = false;
    this.onRated = onRated;
    this.onTrouble = onTrouble;
    this.part("who").textContent = title;
    this.part("up").addEventListener("click", () => this.rate(1));
    this.part("down").addEventListener("click", () => this.rate(0));
    for (const kind of Object.keys(FORMS)) this.part(FORMS[kind].button).addEventListener("click", () => this.toggle(kind));
    this.listenToForm();
  }

  listenToForm() {
    const form = this.part("words-form");
    form.addEventListener("submit", (event) => { event.preventDefault(); this.saveForm(); });
    form.querySelector(".cancel").addEventListener("click", () => this.close());
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.stopPropagation(); this.close(); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.saveForm(); }
    });
  }

  setText(text) { this.text = text; show(this.part("words"), text); }

  setBusy(isBusy) { this.element.classList.toggle("writing", isBusy); this.element.setAttribute("aria-busy", isBusy); }

  remark(text) { this.part("remark").textContent = text; this.part("remark").hidden = !text; }

  // From here on it can be rated, by the id that the store has it under.
  finish({ id, policy, version = null, isCut = false }) {
    this.id = id;
    this.setBusy(false);
    show(this.part("by"), version === null ? policy : `${policy}, version ${version}`);
    if (isCut) this.remark("Cut off here: the answer reached the limit of its length.");
    if (!this.text) this.remark("The answer is empty.");
    this.part("tools").hidden = false;
  }

  // Returns whether the server has it now.
  async tell(said, done) {
    if (this.isBusy) return false;
    this.isBusy = true;
    const note = this.part("saved");
    note.textContent = "";
    try {
      await sendFeedback({ completion_id: this.id, ...said });
      note.textContent = done;
      return true;
    } catch (error) {
      note.textContent = "Not saved";
      this.onTrouble(error);
      return false;
    } finally { this.isBusy = false; }
  }

  async rate(score) {
    if (!(await this.tell({ score }, "Saved"))) return;
    this.showRating(score);
    this.onRated(score);
  }

  showRating(score) {
    this.score = score;
    this.part("up").setAttribute("aria-pressed", score === 1);
    this.part("down").setAttribute("aria-pressed", score === 0);
  }

  toggle(kind) { if (this.open === kind) this.close(); else this.show(kind); }

  show(kind) {
    this.close();
    this.open = kind;
    const form = this.part("words-form"), field = form.querySelector("textarea");
    form.querySelector("label span").textContent = FORMS[kind].label;
    field.value = this.saved[kind] || (kind === "correction" ? this.text : "");
    field.rows = kind === "correction" ? Math.min(12, Math.max(4, Math.ceil(this.text.length / 70))) : 3;
    form.hidden = false;
    this.part(FORMS[kind].button).setAttribute("aria-expanded", "true");
    field.focus();
  }

  close() {
    if (!this.open) return;
    const button = this.part(FORMS[this.open].button);
    this.open = null;
    this.part("words-form").hidden = true;
    button.setAttribute("aria-expanded", "false");
    button.focus();
  }

  async saveForm() {
    const kind = this.open, field = this.part("words-form").querySelector("textarea"), words = field.value;
    if (!words.trim() || (kind === "correction" && words === this.text)) {
      this.part("saved").textContent = kind === "comment" ? "Nothing written" : "Nothing changed";
      field.focus();
      return;
    }
    if (!(await this.tell({ [kind]: words }, FORMS[kind].done))) return;
    this.saved[kind] = words;
    this.part(FORMS[kind].button).classList.add("given");
    this.close();
  }
}
