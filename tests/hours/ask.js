// Answers on each line of its input, {"text", "from", "to"}, with the times at which opening_hours.js finds the text open:
// [[from, to], …], or {"error"}. The clock is UTC: the test sets TZ.
const OpeningHours = require('opening_hours');
// Of Germany's states, the one whose holidays differ least from those of all of them.
const place = { lat: 52.5, lon: 13.4, address: { country_code: 'de', state: 'Berlin' } };
const lines = require('fs').readFileSync(0, 'utf8').split('\n').filter(Boolean);
for (const { text, from, to } of lines.map(JSON.parse)) {
  let answer;
  try {
    const hours = new OpeningHours(text, place, { mode: 0, locale: 'en' });
    const open = hours.getOpenIntervals(new Date(from), new Date(to)).filter(([, , unknown]) => !unknown);
    answer = open.map(([begin, end]) => [begin.toISOString(), end.toISOString()]);
  } catch (error) {
    answer = { error: String(error) };
  }
  console.log(JSON.stringify(answer));
}
