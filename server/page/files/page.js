// What pages are pleasanter with: all of them work without.
"use strict";

// Buttons that copy the text before them.
for (const block of document.querySelectorAll("[data-copy]")) {
	const button = document.createElement("button");
	button.type = "button";
	button.className = "copy";
	button.textContent = "Copy";
	button.setAttribute("aria-label", "Copy " + (block.dataset.copy || "the command"));
	button.addEventListener("click", async () => {
		try {
			await navigator.clipboard.writeText(block.querySelector("code, textarea").textContent);
			button.textContent = "Copied";
		} catch {
			button.textContent = "Select and copy";
		}
		setTimeout(() => { button.textContent = "Copy"; }, 2000);
	});
	block.append(button);
}

// Questions before what cannot be taken back.
for (const form of document.querySelectorAll("form[data-ask]")) {
	form.addEventListener("submit", (e) => {
		if (!confirm(form.dataset.ask)) e.preventDefault();
	});
}

// The key for the search.
document.addEventListener("keydown", (e) => {
	if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey) return;
	if (e.target.closest("input, textarea, select")) return;
	e.preventDefault();
	document.getElementById("find").focus();
});
