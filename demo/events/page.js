// Asks for the page's middle again while somebody looks at it.
const middle = document.getElementById("middle");

async function look() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/middle");
    if (answer.ok) middle.innerHTML = await answer.text();
  } catch {
    // The service is away; with the next look it may be there.
  }
}

setInterval(look, 2000);
document.addEventListener("visibilitychange", look);
