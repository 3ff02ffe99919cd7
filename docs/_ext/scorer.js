/* Search results: guides come first, then the reference; the twin and the HTTP API come after the client, and so does the
 * map of the code. */
var Scorer = {
  score: (result) => {
    const [page, , , , score] = result;
    if (/^(tutorial$|guides\/|explanation\/(?!map$))/.test(page)) return score + 5;
    if (/^(reference\/(sync|http-api)|coming-from\/|explanation\/map$)/.test(page)) return score - 3;
    return score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
