// Returns the elements whose text has too little contrast, as WCAG measures it.
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = (colors) => {
  canvas.clearRect(0, 0, 1, 1);
  for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const light = (colors) => rgb(colors).map(c => c / 255)
  .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const grounds = (it) => it ? [...grounds(it.parentElement), getComputedStyle(it).backgroundColor]
  : [];
const bad = new Set();
for (const it of document.body.querySelectorAll('*')) {
  const own = [...it.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  if (!own || !it.getClientRects().length || it.closest('svg, option')) continue;
  const below = grounds(it), a = light(below), b = light([...below, getComputedStyle(it).color]);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) bad.add(`${it.tagName}.${it.className} ${ratio.toFixed(2)}`);
}
return [...bad];
