/* Search results: guides come first, then the reference; the twin and the HTTP API come after the client, and so do the
 * pages that mention everything. A page whose own title has the words of the search is meant by it. */
const searched = (new URLSearchParams(window.location.search).get("q") || "")
  .toLowerCase()
  .split(/\W+/)
  .filter((word) => word.length > 3)
  .map((word) => word.replace(/s$/, ""));
var Scorer = {
  score: (result) => {
    const [page, title, anchor, , score] = result;
    const words = anchor ? [] : searched.filter((word) => title.toLowerCase().includes(word));
    const named = score + 4 * words.length;
    if (/^(reference\/(sync|http-api)|coming-from\/|explanation\/(map|decisions)$|guides\/examples$)/.test(page)) return named - 3;
    if (/^(tutorial$|guides\/|explanation\/)/.test(page)) return named + 5;
    return named;
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
