// Numbers and times as text.

const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** A duration: `6.3 ms`, `240 ms`, `1.2 s`. */
export function duration(ms) {
  const size = Math.abs(ms);
  if (size < 100) return `${trim(ms)} ms`;
  if (size < 10000) return `${Math.round(ms)} ms`;
  if (size < 600000) return `${trim(ms / 1000)} s`;
  return `${Math.round(ms / 60000)} min`;
}

/** Time of day with milliseconds. */
export function timeOfDay(at) {
  return clock.format(new Date(at));
}

/** A time as text, with the date when that is not today. */
export function moment(at) {
  const day = dayUnlessToday(at);
  const time = timeOfDay(at).slice(0, 8);
  return day ? `${day}, ${time}` : time;
}

/** Date without time, for a day that is not today; else nothing. */
export function dayUnlessToday(at) {
  const date = new Date(at);
  return date.toDateString() === new Date().toDateString() ? "" : day.format(date);
}

/** `1 flag`, `2 flags`. */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function trim(number) {
  return String(Math.round(number * 10) / 10);
}
