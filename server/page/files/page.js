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

// A log that goes on.
for (const log of document.querySelectorAll("[data-live]")) {
	const source = new EventSource(log.dataset.live);
	const note = document.getElementById("following");
	source.addEventListener("open", () => {
		log.replaceChildren(); // it comes from its start
		note.textContent = "The log goes on by itself.";
	});
	source.addEventListener("message", (e) => {
		const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
		for (const piece of JSON.parse(e.data)) {
			const part = document.createElement("span");
			part.className = piece.c || "";
			part.textContent = piece.t;
			log.append(part);
		}
		while (log.childNodes.length > 4000) log.firstChild.remove();
		if (atEnd) log.scrollTop = log.scrollHeight;
	});
	source.addEventListener("end", () => {
		source.close();
		location.reload();
	});
	document.addEventListener("submit", (e) => {
		if (!e.defaultPrevented) source.close(); // a page that comes is not to be loaded over
	});
	source.addEventListener("error", () => {
		note.textContent = "The connection broke off. Trying again.";
	});
}

// A definition is checked while it is written, and can be dropped in.
for (const form of document.querySelectorAll("form[data-check]")) {
	const text = form.querySelector("textarea");
	const verdict = document.getElementById("verdict");
	let waits = 0;
	let asked = 0;
	const say = (kind, words, more) => {
		const p = document.createElement("p");
		p.className = "note " + kind;
		p.textContent = words;
		if (more) {
			const code = document.createElement("code");
			code.textContent = more;
			p.append(document.createElement("br"), code);
		}
		verdict.append(p);
	};
	const check = async () => {
		const mine = ++asked;
		let answer;
		try {
			const res = await fetch(form.dataset.check, { method: "POST", body: new URLSearchParams(new FormData(form)) });
			if (!res.ok) return;
			answer = await res.json();
		} catch {
			return; // the button checks as well
		}
		if (mine !== asked) return;
		verdict.replaceChildren();
		say(answer.good ? "good" : "bad", (answer.line ? "Line " + answer.line + ": " : "") + answer.message, answer.text);
		for (const w of answer.warnings || []) say("warn", w);
	};
	text.addEventListener("input", () => {
		clearTimeout(waits);
		waits = setTimeout(check, 500);
	});
	text.addEventListener("dragover", (e) => { e.preventDefault(); });
	text.addEventListener("drop", async (e) => {
		const file = e.dataTransfer.files[0];
		if (!file || file.size > 2 << 20) return;
		e.preventDefault();
		text.value = await file.text();
		check();
	});
}
