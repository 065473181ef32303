// The numbers of the ticked runs: read from where the last reading ended, and kept as columns.

export const AXES = ["step", "num_tokens_generated", "elapsed_seconds"];
const EVALUATION = "evaluation_";

const emptyPart = () => ({ columns: {}, numRows: 0, place: { offset: 0, mark: "" } });
const runs = new Map();

export const forget = (id) => runs.delete(id);

// Every metric that any of these runs has.
export const metricsOf = (ids) => [...new Set(ids.flatMap((id) => [...(runs.get(id)?.names ?? [])]))].sort();

// Reads what is new in a run; false if the run is gone. A metric not asked for before means reading from the start.
export const refresh = async (id, metrics, size) => {
  const wanted = [...new Set([...AXES, ...metrics])];
  let run = runs.get(id);
  if (run && run.size === String(size) && wanted.every((name) => run.wanted.has(name))) return true;
  if (!run || !wanted.every((name) => run.wanted.has(name))) {
    run = { steps: emptyPart(), evaluations: emptyPart(), names: new Set(run?.names), wanted: new Set(wanted) };
  }
  for (let hasMore = true; hasMore; ) {
    const answer = await fetch(`/api/curves?${query(id, run)}`);
    if (answer.status === 404) { forget(id); return false; }
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const found = await answer.json();
    for (const part of ["steps", "evaluations"]) {
      append(run[part], found[part]);
      for (const name of found[part].names) run.names.add(name);
    }
    hasMore = found.steps.has_more || found.evaluations.has_more;
  }
  run.size = String(size);
  runs.set(id, run);
  return true;
};

const query = (id, run) => {
  const asked = new URLSearchParams({ run: id, offset: run.steps.place.offset, mark: run.steps.place.mark,
    evaluation_offset: run.evaluations.place.offset, evaluation_mark: run.evaluations.place.mark });
  for (const name of run.wanted) asked.append("name", name);
  return asked;
};

const append = (part, found) => {
  if (found.is_from_start) { part.columns = {}; part.numRows = 0; }
  part.place = found.place;
  if (!found.num_rows) return;
  cutBack(part, found.values.step?.[0]);
  for (const [name, values] of Object.entries(found.values)) {
    const column = (part.columns[name] ??= []);
    while (column.length < part.numRows) column.push(null);
    for (const value of values) column.push(value);
  }
  part.numRows += found.num_rows;
};

// A resumed run does some steps again: the later row counts.
const cutBack = (part, first) => {
  const steps = part.columns.step ?? [];
  let keep = part.numRows;
  while (typeof first === "number" && keep > 0 && steps[keep - 1] >= first) keep--;
  for (const column of Object.values(part.columns)) column.length = Math.min(column.length, keep);
  part.numRows = keep;
};

const hasAny = (part, metric) => part.columns[metric]?.some((value) => typeof value === "number");

// x and y of a metric: null (not in the row) is left out, a number that was not finite is a gap.
export const curveOf = (id, metric, axis) => {
  const run = runs.get(id), x = [], y = [];
  if (!run) return { x, y };
  const part = metric.startsWith(EVALUATION) && hasAny(run.evaluations, metric) ? run.evaluations : run.steps;
  const along = part.columns[axis] ?? [], values = part.columns[metric] ?? [];
  values.forEach((value, index) => {
    if (value === null || typeof along[index] !== "number") return;
    x.push(along[index]);
    y.push(value === "NaN" ? NaN : value);
  });
  return { x, y };
};
