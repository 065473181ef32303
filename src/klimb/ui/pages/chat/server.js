// What is asked of the server, and nobody else: the page's own data, completions, feedback.

const KEY = "klimb-key", RATER = "klimb-rater";

export const getKey = () => sessionStorage.getItem(KEY) ?? "";
export const getRater = () => sessionStorage.getItem(RATER) ?? "";

const keep = (name, value) => (value ? sessionStorage.setItem(name, value) : sessionStorage.removeItem(name));
export const keepIdentity = (key, rater) => { keep(KEY, key.trim()); keep(RATER, rater.trim()); };

// What a server refused; `status` 0 is no answer at all.
export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

const headers = (more = {}) => ({ ...(getKey() ? { Authorization: `Bearer ${getKey()}` } : {}), ...more });

const reasonOf = async (answer) => {
  const text = await answer.text();
  try {
    const said = JSON.parse(text);
    const reason = said.error?.message ?? said.detail ?? said.message ?? text;
    return typeof reason === "string" ? reason : JSON.stringify(reason);
  } catch { return text; }
};

const ask = async (path, options) => {
  let answer;
  try { answer = await fetch(path, { cache: "no-store", credentials: "omit", ...options }); } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401 || answer.status === 403) throw new Refused(answer.status, "The server asks for a key that may do this.");
  throw new Refused(answer.status, `The server refused (${answer.status}): ${(await reasonOf(answer)).slice(0, 500)}`);
};

const read = async (path, more) => (await ask(path, { headers: headers(more) })).json();
const send = (path, body, signal) =>
  ask(path, { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body), signal });

export const fetchPolicy = () => read("/people/policy");
export const fetchCounts = () => read("/people/counts");

export const fetchQueue = ({ before = "", second = false }) => {
  const asked = new URLSearchParams({ before, second });
  return read(`/people/queue?${asked}`, getRater() ? { "X-Klimb-Rater": encodeURIComponent(getRater()) } : {});
};

// `said` is of one answer: a score, a comment, a correction, or another answer that it is better than.
export const sendFeedback = (said) => send("/v1/feedback", getRater() ? { ...said, rater: getRater() } : said);

// Calls `take` with each chunk of a completion, as OpenAI's API streams them.
export const streamCompletion = async (request, signal, take) => {
  const answer = await send("/v1/chat/completions", { ...request, stream: true }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "", isDone = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (waiting + value).split(/\r?\n/);
    waiting = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") { isDone = true; continue; }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(500, `The answer ended with an error: ${chunk.error.message ?? "unknown"}`);
      take(chunk);
    }
  }
  if (!isDone) throw new Refused(0, "The answer broke off: the connection ended early.");
};
