// The queue: one answer after another, most of all by keys.

import { Answer } from "./answer.js";
import { fetchQueue } from "./server.js";
import { copyOf, count, find, moment, show } from "./text.js";

const NAMES = { user: "Person", assistant: "Answer before", system: "Instructions", tool: "Tool" };

export class Queue {
  constructor({ onTrouble }) {
    this.onTrouble = onTrouble;
    find("queue-kind").addEventListener("change", () => this.load());
    find("previous").addEventListener("click", () => this.go(-1));
    find("next").addEventListener("click", () => this.go(1));
  }

  get isSecond() { return find("queue-kind").value === "second"; }

  get current() { return this.items[this.place]; }

  async load() {
    this.items = [];
    this.place = 0;
    this.isLast = false;
    await this.more();
    this.draw();
  }

  async more() {
    if (this.isLast || this.isLoading) return;
    this.isLoading = true;
    try {
      const found = await fetchQueue({ before: this.items.at(-1)?.id ?? "", second: this.isSecond });
      const known = new Set(this.items.map((item) => item.id));
      this.items.push(...found.answers.filter((item) => !known.has(item.id)));
      this.isLast = found.is_last;
    } catch (error) { this.onTrouble(error); this.isLast = true; } finally { this.isLoading = false; }
  }

  draw({ isMoved = false } = {}) {
    const item = this.current;
    find("queue-empty").hidden = Boolean(item);
    find("queue-buttons").hidden = !item;
    find("queue-empty").textContent = this.isSecond ? "Nothing here: no answer that others rated waits for you." : "Nothing here: every answer is rated.";
    find("queue-item").replaceChildren();
    find("queue-place").textContent = item ? this.told() : "";
    if (!item) return;
    find("previous").disabled = this.place === 0;
    find("next").disabled = this.place === this.items.length - 1 && this.isLast;
    item.view ??= this.view(item);
    find("queue-item").append(...item.view);
    if (isMoved) { item.answer.part("who").focus({ preventScroll: true }); find("queue").scrollIntoView({ block: "start" }); }
  }

  told() {
    const left = this.items.filter((item) => item.answer?.score === undefined).length;
    return `${count(left, "answer")}${this.isLast ? "" : " or more"} left`;
  }

  view(item) {
    const turns = item.prompt.map((message) => {
      const turn = copyOf("turn-template");
      turn.classList.add(message.role === "user" ? "user" : "other");
      turn.querySelector(".who").textContent = NAMES[message.role] ?? message.role;
      show(turn.querySelector(".words"), message.content);
      return turn;
    });
    item.answer = new Answer("Answer", { onTrouble: this.onTrouble, onRated: () => this.rated(item) });
    item.answer.setText(item.response);
    item.answer.finish({ ...item, isCut: item.is_cut });
    if (item.is_stopped) item.answer.remark("Somebody stopped this answer before its end.");
    item.answer.part("by").append(` · ${moment(item.created_at)}`);
    return [...turns, item.answer.element];
  }

  async rated(item) {
    find("queue-place").textContent = `${item.answer.score ? "Good" : "Bad"}: saved. ${this.told()}`;
    if (item === this.current) await this.go(1);
  }

  async go(step) {
    const wanted = this.place + step;
    if (wanted < 0 || this.isLoading) return;
    if (wanted >= this.items.length - 3) await this.more();
    if (wanted >= this.items.length) { find("queue-place").textContent = `${this.told()}; this is the last one`; return; }
    this.place = wanted;
    this.draw({ isMoved: true });
  }

  // Returns whether the key means something here.
  press(key) {
    const answer = this.current?.answer;
    if (key === "j" || key === "ArrowRight") this.go(1);
    else if (key === "k" || key === "ArrowLeft") this.go(-1);
    else if (!answer) return false;
    else if (key === "u") answer.rate(1);
    else if (key === "d") answer.rate(0);
    else if (key === "c") answer.show("comment");
    else if (key === "e") answer.show("correction");
    else return false;
    return true;
  }
}
