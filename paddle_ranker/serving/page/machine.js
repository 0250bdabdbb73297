// The page's state: one small machine, whose transitions and views are pure functions. What is awaited names the turn that
// it was asked in; what comes after its turn changes nothing.

/** `name`: idle, asking, shown, refused, or locked, which needs a key. `answer`: what is drawn, with its number of rows,
 *  and whether all of them are there. `isWelcome`: there is no query. `why`: the id of the hit whose reasons are open. */
export const START = { name: "idle", turn: 0, isSlow: false, error: null, answer: null, isWelcome: false, suggestions: false, why: "" };

const ended = (state) => (state.answer ? "shown" : "idle");

const TRANSITIONS = {
  ask: (state) => ({ ...state, name: "asking", turn: state.turn + 1, isSlow: false, suggestions: false }),
  slow: (state) => (state.name === "asking" ? { ...state, isSlow: true } : state),
  answer: (state, { rows, isFirst }) => ({ ...state, name: "shown", isSlow: false, error: null, why: "", isWelcome: isFirst, answer: { rows, isWhole: !rows } }),
  whole: (state) => (state.answer ? { ...state, answer: { ...state.answer, isWhole: true } } : state),
  refuse: (state, { error, keeps }) => ({
    ...state, name: error.kind === "needs_key" ? "locked" : "refused", isSlow: false, error, suggestions: false, isWelcome: false,
    answer: keeps ? state.answer : null, why: keeps ? state.why : "",
  }),
  welcome: ({ name, turn }, { isDone }) => ({ ...START, isWelcome: true, name: isDone ? "idle" : name, turn }),
  suggest: (state, { count }) => ({ ...state, suggestions: count > 0 }),
  dismiss: (state) => (state.suggestions ? { ...state, suggestions: false } : state),
  open: (state, { id }) => (state.answer ? { ...state, why: id, error: null, name: state.name === "refused" ? ended(state) : state.name } : state),
  close: (state) => (state.why ? { ...state, why: "" } : state),
};

/** Return the state after an event; an event of an earlier turn, or one that changes nothing, returns the state itself. */
export function next(state, event) {
  return event.turn !== undefined && event.turn !== state.turn ? state : TRANSITIONS[event.type](state, event);
}

/** Return what of the page is seen in a state. */
export function viewOf({ name, isSlow, error, answer, isWelcome, suggestions, why }) {
  return {
    isEmpty: !answer,
    isBusy: name === "asking" || Boolean(answer && !answer.isWhole),
    isWorking: isSlow,
    welcome: isWelcome,
    board: Boolean(answer?.rows),
    nothing: answer?.rows === 0,
    failure: Boolean(error),
    suggestions,
    why: Boolean(why && answer?.rows),
  };
}

let current = START;
const listeners = [];

export const now = () => current;

/** Call a function with the new state and the one before, after each change. */
export const listen = (listener) => listeners.push(listener);

export function send(type, more = {}) {
  const before = current;
  current = next(current, { type, ...more });
  if (current !== before) for (const listener of listeners) listener(current, before);
  return current;
}
