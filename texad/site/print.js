// Runs in each page of the built book while it is printed; see pdf.py, which calls these functions in this order.

window.texadPrint = {
  // The pages of the book, in the order of its table of contents; this page, the root, is the first.
  chapters() {
    const found = new Map([[location.href.split("#")[0], ""]]);
    let part = "";
    for (const item of document.querySelectorAll("nav.bd-links .caption, nav.bd-links a.reference.internal")) {
      if (item.matches(".caption")) part = item.textContent.trim();
      else if (!found.has(item.href.split("#")[0])) found.set(item.href.split("#")[0], part);
    }
    return [...found].map(([url, part], i) => ({ url, part, key: `page-${i + 1}` }));
  },

  // The text of this page, made fit to stand in one document with the others: ids and links get the key of their page.
  collect(chapters) {
    const keys = Object.fromEntries(chapters.map((chapter) => [chapter.url, chapter.key]));
    const key = keys[location.href.split("#")[0]];
    const article = document.querySelector("article.bd-article");
    const each = (selector, change) => article.querySelectorAll(selector).forEach(change);

    each("canvas", (canvas) => {
      const image = new Image();
      image.src = canvas.toDataURL();
      image.alt = canvas.getAttribute("aria-label") || "";
      image.style.width = `${canvas.clientWidth}px`;
      canvas.replaceWith(image);
    });
    each("a.headerlink, button, script", (element) => element.remove());
    each("details.hide", (details) => {
      details.querySelector("summary").remove(); // it says "show" and "hide"
      details.replaceWith(...details.childNodes);
    });
    each("details", (details) => (details.open = true));
    each(".toggle-hidden", (element) => element.classList.remove("toggle-hidden"));
    each("img[src]", (image) => {
      image.src = image.src; // in full, since it will be read from another folder
      image.loading = "eager";
    });
    each("a[href]", (link) => {
      const url = new URL(link.getAttribute("href"), location.href);
      const target = keys[url.href.split("#")[0]];
      if (target) link.setAttribute("href", `#${target}${url.hash && "-"}${url.hash.slice(1)}`);
      else if (url.protocol === "file:") link.removeAttribute("href"); // a download: it does not come along on paper
    });
    each("[id]", (element) => element.closest("svg") || (element.id = `${key}-${element.id}`));
    for (const name of ["for", "aria-labelledby", "aria-describedby"]) {
      each(`[${name}]`, (element) => {
        const ids = element.getAttribute(name).split(/\s+/);
        element.setAttribute(name, ids.map((id) => `${key}-${id}`).join(" "));
      });
    }
    const styles = [...document.querySelectorAll("link[rel=stylesheet]")].map((link) => link.href);
    return { key, styles, html: article.innerHTML };
  },

  // The whole book in place of this page: title, contents, chapters. It waits until each picture can be drawn, and
  // gives the addresses of those that cannot.
  async compose(book) {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.mode = "light";
    document.title = book.title;
    document.body.innerHTML = `<main class="bd-content texad-book"></main>`;
    const main = document.querySelector("main");
    main.innerHTML = "<header></header><nav><h1>Contents</h1></nav>";
    const add = (parent, tag, text, name = "") => {
      const element = parent.appendChild(document.createElement(tag));
      element.textContent = text;
      element.className = name;
      return element;
    };
    add(main.querySelector("header"), "p", book.title, "title");
    add(main.querySelector("header"), "p", book.author, "author");
    for (const line of book.lines) add(main.querySelector("header"), "p", line);

    const present = [...document.querySelectorAll("link[rel=stylesheet]")].map((link) => link.href);
    for (const href of new Set(book.chapters.flatMap((chapter) => chapter.styles))) {
      if (!present.includes(href)) Object.assign(add(document.head, "link", ""), { rel: "stylesheet", href });
    }
    let css = book.css;
    let part = "";
    for (const chapter of book.chapters) {
      const article = add(main, "article", "", "bd-article");
      article.id = chapter.key;
      article.innerHTML = chapter.html;
      if (chapter.part !== part) add(main.querySelector("nav"), "p", (part = chapter.part), "part");
      for (const heading of article.querySelectorAll("h1, h2")) {
        const entry = add(main.querySelector("nav"), "a", "", heading.matches("h1") ? "chapter" : "section");
        const title = entry.appendChild(document.createElement("span"));
        title.append(...heading.cloneNode(true).childNodes);
        title.querySelectorAll("a").forEach((link) => link.replaceWith(...link.childNodes)); // no link within a link
        heading.id = `heading-${main.querySelectorAll("nav a").length}`;
        entry.href = `#${heading.id}`;
        add(entry, "span", "", "number");
      }
      // The name of the chapter stands at the top of its pages: each chapter has a kind of page of its own.
      const name = this.plain(article.querySelector("h1"));
      css += `\n#${chapter.key} { page: ${chapter.key} }`;
      css += `\n@page ${chapter.key} { @top-center { content: ${JSON.stringify(name)} } }`;
    }
    add(document.head, "style", css);
    await document.fonts.ready;
    const images = [...main.querySelectorAll("img[src]")];
    const decoded = await Promise.allSettled(images.map((image) => image.decode()));
    // What cannot wrap and is wider than the paper is made smaller.
    for (const element of main.querySelectorAll("table, math[display=block], .texad-explorer")) {
      const room = element.parentElement.clientWidth;
      if (room && element.scrollWidth > room) element.style.zoom = room / element.scrollWidth;
    }
    return images.filter((image, i) => decoded[i].status === "rejected").map((image) => image.src);
  },

  // Put the page numbers into the contents.
  number(pages) {
    for (const entry of document.querySelectorAll("main > nav a")) {
      entry.querySelector(".number").textContent = pages[entry.hash.slice(1)] ?? "";
    }
  },

  // The text of each heading, as the outline should have it.
  headings() {
    return [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(this.plain);
  },

  plain(heading) {
    return heading.textContent.trim().replace(/\s+/g, " ");
  },
};
