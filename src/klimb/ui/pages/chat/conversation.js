// A conversation: messages, answers as they are written, and two answers side by side.

import { Answer } from "./answer.js";
import { getRater, sendFeedback, streamCompletion } from "./server.js";
import { copyOf, find, show, visible } from "./text.js";

const SENTENCE = /^[\s\S]*?[.!?。！？\n](?=\s|$)/u;
const CHOICES = { first: [0, 1], second: [1, 0], good: 1, bad: 0 };
const SAID = { first: "A is better: saved", second: "B is better: saved", good: "Both good: saved", bad: "Both bad: saved" };

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

// What a screen reader hears: whole sentences, once each, and not every token.
class Spoken {
  constructor() { this.waiting = ""; }

  add(text) {
    this.waiting += text;
    for (let found = SENTENCE.exec(this.waiting); found; found = SENTENCE.exec(this.waiting)) {
      Spoken.say(found[0]);
      this.waiting = this.waiting.slice(found[0].length);
    }
  }

  end() { if (this.waiting.trim()) Spoken.say(this.waiting); this.waiting = ""; }

  static say(text) {
    if (!text.trim()) return;
    const line = document.createElement("p");
    line.textContent = visible(text);
    find("spoken").append(line);
  }
}

export class Conversation {
  constructor({ model, onTrouble, onModel }) {
    Object.assign(this, { model, onTrouble, onModel });
    find("composer").addEventListener("submit", (event) => { event.preventDefault(); this.send(); });
    find("question").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.send(); }
    });
    find("question").addEventListener("input", () => this.fitQuestion());
    find("stop").addEventListener("click", () => this.stop());
    find("new").addEventListener("click", () => this.begin());
    this.begin();
  }

  begin() {
    if (this.running) return;
    this.id = newId();
    this.messages = [];
    this.pair = null;
    find("turns").replaceChildren();
    find("spoken").replaceChildren();
    find("greeting").hidden = false;
    find("new").hidden = true;
  }

  fitQuestion() {
    const field = find("question");
    field.rows = Math.min(8, Math.max(2, field.value.split("\n").length));
  }

  stop() { this.running?.abort(); }

  async send() {
    const words = find("question").value;
    if (this.running || !words.trim()) return;
    if (this.pair && !this.pair.isChosen) { this.pair.askAgain(); return; }
    this.pair = null;
    const asked = this.showQuestion(words);
    const before = this.messages;
    this.messages = [...before, { role: "user", content: words }];
    const answers = this.showAnswers(find("two").checked ? 2 : 1);
    const isKept = await this.draw(answers);
    if (isKept) return;
    this.messages = before;
    asked.remove();
    answers.element.remove();
    if (!find("question").value) find("question").value = words;
    find("greeting").hidden = this.messages.length > 0;
  }

  showQuestion(words) {
    const turn = copyOf("turn-template");
    turn.classList.add("user");
    turn.querySelector(".who").textContent = "You";
    show(turn.querySelector(".words"), words);
    find("turns").append(turn);
    find("greeting").hidden = true;
    find("question").value = "";
    this.fitQuestion();
    return turn;
  }

  showAnswers(number) {
    const shown = number === 1 ? new Single(this.onTrouble) : new Pair(this.onTrouble, (kept) => this.keep(kept));
    if (number > 1) this.pair = shown;
    find("turns").append(shown.element);
    shown.element.scrollIntoView({ block: "nearest" });
    return shown;
  }

  keep(answer) { this.messages = [...this.messages.filter((message) => !message.isLast), { role: "assistant", content: answer.text, isLast: true }]; }

  request(number) {
    const messages = this.messages.map(({ role, content }) => ({ role, content }));
    const request = { model: this.model, messages, metadata: { conversation: this.id } };
    if (number > 1) request.n = number;
    if (getRater()) request.user = getRater();
    return request;
  }

  // Returns whether there is something to keep.
  async draw(shown) {
    this.messages = this.messages.map(({ role, content }) => ({ role, content }));
    const running = (this.running = new AbortController());
    this.setRunning(true);
    let trouble = null;
    try {
      await streamCompletion(this.request(shown.answers.length), running.signal, (chunk) => this.take(shown, chunk));
    } catch (error) { trouble = error; }
    this.running = null;
    this.setRunning(false);
    shown.spoken?.end();
    if (trouble && trouble.name !== "AbortError") this.onTrouble(trouble);
    if (trouble && !shown.answers.some((answer) => answer.text)) return false;
    this.end(shown, trouble);
    return true;
  }

  take(shown, chunk) {
    if (chunk.model) this.onModel(chunk.model);
    for (const choice of chunk.choices ?? []) {
      const answer = shown.answers[choice.index];
      if (!answer) continue;
      const isLow = document.documentElement.scrollHeight - innerHeight - scrollY < 160;
      answer.ending = { id: shown.idOf(chunk.id, choice.index), policy: chunk.model, isCut: choice.finish_reason === "length" };
      const more = choice.delta?.content ?? "";
      if (more) { answer.setText(answer.text + more); shown.spoken?.add(more); }
      if (choice.finish_reason) answer.isWhole = true;
      if (isLow) scrollTo(0, document.documentElement.scrollHeight);
    }
  }

  end(shown, trouble) {
    for (const answer of shown.answers) {
      const isStopped = !answer.isWhole && trouble?.name === "AbortError";
      if (answer.isWhole || (isStopped && answer.text)) answer.finish(answer.ending);
      else answer.setBusy(false);
      if (!answer.isWhole) answer.remark(isStopped ? "You stopped this answer." : "This answer broke off.");
    }
    if (shown.end()) this.keep(shown.answers.find((answer) => answer.text) ?? shown.answers[0]);
    else Spoken.say("Two answers are there. Which is better?");
  }

  setRunning(isRunning) {
    find("stop").hidden = !isRunning;
    find("send").hidden = isRunning;
    find("new").hidden = isRunning || !find("turns").childElementCount;
  }
}

class Single {
  constructor(onTrouble) {
    this.answers = [new Answer("Answer", { onTrouble })];
    this.element = this.answers[0].element;
    this.spoken = new Spoken();
    this.answers[0].setBusy(true);
  }

  idOf(id) { return id; }

  end() { return true; }
}

class Pair {
  constructor(onTrouble, onKept) {
    Object.assign(this, { onTrouble, onKept, isChosen: false });
    this.element = copyOf("pair-template");
    this.answers = ["A", "B"].map((title) => new Answer(title, { onTrouble }));
    this.choice = this.element.querySelector(".choice");
    this.element.querySelector(".sides").append(...this.answers.map((answer) => answer.element));
    for (const answer of this.answers) answer.setBusy(true);
    for (const button of this.choice.querySelectorAll("button")) button.addEventListener("click", () => this.choose(button.dataset.choice));
  }

  idOf(id, index) { return `${id}-${index}`; }

  // Returns whether the conversation can go on at once: where one of the two is missing there is nothing to choose.
  end() {
    this.isChosen = !this.answers.every((answer) => answer.isWhole);
    this.choice.hidden = this.isChosen;
    if (!this.isChosen) this.choice.scrollIntoView({ block: "nearest" });
    return this.isChosen;
  }

  askAgain() {
    this.choice.querySelector(".saved").textContent = "Choose first: the conversation goes on with that answer.";
    this.choice.querySelector("button").focus();
  }

  async choose(name) {
    if (this.isBusy || this.choice.hidden) return;
    this.isBusy = true;
    const [better, worse] = Array.isArray(CHOICES[name]) ? CHOICES[name].map((number) => this.answers[number]) : [];
    try {
      if (better) await sendFeedback({ completion_id: better.id, over: worse.id });
      else for (const answer of this.answers) await sendFeedback({ completion_id: answer.id, score: CHOICES[name] });
    } catch (error) { this.choice.querySelector(".saved").textContent = "Not saved"; this.onTrouble(error); return; } finally { this.isBusy = false; }
    if (!better) for (const answer of this.answers) answer.showRating(CHOICES[name]);
    this.showChoice(name, better ?? this.answers[0]);
  }

  showChoice(name, kept) {
    this.isChosen = true;
    this.choice.querySelector(".saved").textContent = SAID[name];
    for (const button of this.choice.querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.choice === name);
    for (const answer of this.answers) answer.element.classList.toggle("aside", answer !== kept);
    this.onKept(kept);
  }
}
