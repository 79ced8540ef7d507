// Before anything is drawn: the theme that was chosen, else the system's.
(function() {
try {
  const theme = localStorage.getItem('inferneo.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Without storage the system's theme it is.
}
})();
