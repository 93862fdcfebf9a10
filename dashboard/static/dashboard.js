// Keys, a bound for what a live log holds, and no open streams in tabs that nobody sees. All else works without this file.
"use strict";
(() => {
  // An EventSource that is closed while its page is hidden: browsers open six connections to a host for all tabs together.
  class Source {
    constructor(url) {
      this.url = url;
      this.listeners = [];
      this.over = false;
      this.onopen = this.onerror = null;
      this.open();
      document.addEventListener("visibilitychange", () => this.look());
    }
    get readyState() {
      return this.real ? this.real.readyState : EventSource.CONNECTING;
    }
    look() {
      if (this.over) {
        return;
      }
      if (document.hidden && this.real) {
        this.real.close();
        this.real = null;
      } else if (!document.hidden && !this.real) {
        this.open();
      }
    }
    open() {
      this.real = new EventSource(this.url);
      this.real.onopen = (event) => this.onopen && this.onopen(event);
      this.real.onerror = (event) => {
        if (this.readyState === EventSource.CLOSED) {
          this.over = true; // whoever uses this opens another one
        }
        if (this.onerror) {
          this.onerror(event);
        }
      };
      for (const [name, listener] of this.listeners) {
        this.real.addEventListener(name, listener);
      }
    }
    addEventListener(name, listener) {
      this.listeners.push([name, listener]);
      if (this.real) {
        this.real.addEventListener(name, listener);
      }
    }
    removeEventListener(name, listener) {
      this.listeners = this.listeners.filter(([n, l]) => n !== name || l !== listener);
      if (this.real) {
        this.real.removeEventListener(name, listener);
      }
    }
    close() {
      this.over = true;
      if (this.real) {
        this.real.close();
      }
    }
  }
  if (window.htmx) {
    htmx.createEventSource = (url) => new Source(url);
  }
  const MOST_LINES = 5000;
  const help = document.getElementById("keys");
  const button = document.getElementById("help-button");
  if (help && button) {
    button.hidden = false;
    button.addEventListener("click", () => help.showModal());
  }
  let before = "";
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    const writes = at.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (document.body.dataset.keys === "off" || event.ctrlKey || event.altKey || event.metaKey || writes || (help && help.open)) {
      before = "";
      return;
    }
    const key = event.key;
    if (before === "g") {
      before = "";
      const page = document.querySelector(`nav a[data-key="${CSS.escape(key)}"]`);
      if (page) {
        event.preventDefault();
        page.click();
      }
      return;
    }
    before = key === "g" ? "g" : "";
    if (key === "?" && help) {
      event.preventDefault();
      help.showModal();
    } else if (key === "/") {
      const first = document.querySelector("[data-first]");
      if (first) {
        event.preventDefault();
        first.focus();
      }
    } else if (key === "n") {
      const next = document.querySelector("a[rel=next]");
      if (next) {
        next.click();
      }
    } else if (key === "c") {
      const cancel = document.getElementById("cancel");
      if (cancel) {
        event.preventDefault();
        cancel.open = true;
        cancel.querySelector("input[name=reason]").focus();
      }
    } else if (key === "Escape" && at.closest("details[open].act")) {
      const open = at.closest("details[open].act");
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
  // A log that is read at its end stays there as it grows.
  const log = document.getElementById("log");
  if (log) {
    let follows = true;
    log.addEventListener("scroll", () => {
      follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    });
    new MutationObserver(() => {
      while (log.childElementCount > MOST_LINES) {
        log.firstElementChild.remove();
      }
      if (follows) {
        log.scrollTop = log.scrollHeight;
      }
    }).observe(log, { childList: true });
    log.scrollTop = log.scrollHeight;
  }
})();
