// Keeps the page as it is on the platform, and takes the token out of the link that `vend console` prints. Whoever
// opened the link says that they want to sign in with it: it may be somebody else's.
"use strict";

const field = document.getElementById("token");
const fill = () => {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!field || !token) return;
  history.replaceState(null, "", location.pathname);
  field.value = token;
  field.form.querySelector("button").focus();
};
fill();
// The link was opened where this page was already.
addEventListener("hashchange", fill);

const main = document.querySelector("main[data-live]");
if (main) {
  const source = new EventSource(location.href);
  const show = (event) => {
    const [x, y] = [scrollX, scrollY];
    const opened = [...main.querySelectorAll("details")].map((part) => part.open);
    main.innerHTML = JSON.parse(event.data);
    main.querySelectorAll("details").forEach((part, at) => (part.open = opened[at] ?? false));
    scrollTo(x, y);
  };
  source.addEventListener("body", show);
  source.addEventListener("last", (event) => {
    show(event);
    source.close();
  });
  addEventListener("pagehide", () => source.close());
}
