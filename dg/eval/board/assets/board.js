// Sorting, filters and meshes of leaderboard.html. Plain DOM; the page reads well without it.
"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const one = (selector, root = document) => root.querySelector(selector);

  // ---- theme
  const themes = ["auto", "light", "dark"];
  const store = (value) => { try { return value === undefined ? localStorage.getItem("dg-theme") : localStorage.setItem("dg-theme", value); } catch { return null; } };
  const setTheme = (name) => {
    if (name === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = name;
    one("#theme").textContent = "theme: " + name;
    one("#theme").dataset.name = name;
  };
  setTheme(themes.includes(store()) ? store() : "auto");
  one("#theme").addEventListener("click", () => {
    const next = themes[(themes.indexOf(one("#theme").dataset.name) + 1) % themes.length];
    store(next);
    setTheme(next);
  });

  // ---- sorting: methods and references each among themselves; what is not there goes last either way
  const sortBy = (header) => {
    const table = header.closest("table");
    const column = Array.from(header.parentNode.children).indexOf(header);
    const before = header.getAttribute("aria-sort");
    const numeric = !header.classList.contains("name");
    let order = before === "ascending" ? "descending" : "ascending";
    if (before === "none") order = header.dataset.better === "higher" ? "descending" : "ascending";
    all("th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", other === header ? order : "none"));
    const sign = order === "ascending" ? 1 : -1;
    for (const body of all("tbody.methods, tbody.references", table)) {
      const pairs = all("tr.entry", body).map((row) => {
        const text = row.children[column].dataset.v;
        return { row, more: row.nextElementSibling, text, value: text === "" ? NaN : Number(text) };
      });
      pairs.sort((a, b) => {
        if (!numeric) return sign * a.text.localeCompare(b.text);
        if (isNaN(a.value) || isNaN(b.value)) return isNaN(a.value) - isNaN(b.value);
        return sign * (a.value - b.value);
      });
      body.append(...pairs.flatMap((pair) => [pair.row, pair.more]));
    }
  };
  all("table.sortable th button").forEach((button) => button.addEventListener("click", () => sortBy(button.parentNode)));

  // ---- rows that open
  all("button.open").forEach((button) => button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    button.closest("tr").nextElementSibling.hidden = !open;
  }));

  // ---- filters
  const applies = (element, stage, words) => {
    const fits = stage === "all" || (stage === "final" ? element.classList.contains("final") : element.dataset.stage === stage);
    return fits && element.dataset.method.toLowerCase().includes(words);
  };
  const filter = () => {
    const protocol = one("#protocol").value, stage = one("#stage").value, words = one("#search").value.trim().toLowerCase();
    all("section.board").forEach((board) => { board.hidden = protocol !== "" && board.dataset.protocol !== protocol; });
    all("tr.entry").forEach((row) => {
      row.hidden = !applies(row, stage, words);
      row.nextElementSibling.hidden = row.hidden || one("button.open", row).getAttribute("aria-expanded") !== "true";
    });
    all(".tile[data-stage]:not(.input):not(.truth)").forEach((tile) => { tile.hidden = !applies(tile, stage, words); });
    all("table.sortable").forEach((table) => table.classList.toggle("all", one("#figures").value === "all"));
  };
  ["#protocol", "#stage", "#figures"].forEach((id) => one(id).addEventListener("change", filter));
  one("#search").addEventListener("input", filter);

  // ---- views: one slider moves every picture of an object
  const show = (card, view) => all("img[data-n]", card).forEach((image) => {
    const last = Number(image.dataset.n) - 1;
    image.style.setProperty("--at", last > 0 ? (100 * Math.min(view, last)) / last + "%" : "0%");
  });
  all(".card").forEach((card) => {
    const slider = one(".view input", card);
    if (!slider) return;
    slider.addEventListener("input", () => show(card, Number(slider.value)));
    show(card, Number(slider.value));
  });

  // ---- meshes: unpacked when they are asked for, the viewer with the first of them
  let viewer = null;
  const withViewer = () => {
    if (viewer === null) {
      const script = document.createElement("script");
      script.type = "module";
      script.textContent = one("#viewer").textContent;
      document.head.append(script);
      viewer = customElements.whenDefined("model-viewer");
    }
    return viewer;
  };
  const urls = new Map();
  const meshUrl = async (id) => {
    if (!urls.has(id)) {
      const packed = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      const plain = await new Response(stream).arrayBuffer();
      urls.set(id, URL.createObjectURL(new Blob([plain], { type: "model/gltf-binary" })));
    }
    return urls.get(id);
  };
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const turn = async (shot) => {
    if (one("model-viewer", shot.parentNode)) return;
    const box = document.createElement("div");
    box.className = "shot";
    const close = document.createElement("button");
    close.type = "button";
    close.className = "close";
    close.title = "back to the picture";
    close.textContent = "×";
    close.addEventListener("click", () => { box.remove(); shot.hidden = false; });
    const mesh = document.createElement("model-viewer");
    const settings = { "camera-controls": "", "disable-zoom": "", "rotation-per-second": "36deg", "auto-rotate-delay": "0", "interaction-prompt": "none", "shadow-intensity": "0", "camera-orbit": "0deg 75deg 105%", "tone-mapping": "none", alt: shot.getAttribute("aria-label") };
    if (!still.matches) settings["auto-rotate"] = "";
    Object.entries(settings).forEach(([name, value]) => mesh.setAttribute(name, value));
    mesh.addEventListener("error", (event) => { mesh.dataset.error = String(event.detail && event.detail.type); });
    box.append(mesh, close);
    shot.hidden = true;
    shot.after(box);
    try {
      mesh.setAttribute("src", await meshUrl(shot.dataset.mesh));
      await withViewer();
    } catch (error) {
      close.click();
      shot.title = "this browser cannot show the mesh: " + error;
    }
  };
  all("button.shot").forEach((shot) => shot.addEventListener("click", () => turn(shot)));
  all("button.turn-all").forEach((button) => button.addEventListener("click", () => {
    const card = button.closest(".card"), open = all(".close", card);
    if (open.length) open.forEach((close) => close.click());
    else all(".tile:not([hidden]) button.shot", card).forEach(turn);
    button.textContent = open.length ? "turn all meshes" : "back to the pictures";
  }));
  filter();
})();
