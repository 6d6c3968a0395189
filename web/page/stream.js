// Follows `/v1/events` and keeps contact: parses server-sent events and reconnects with backoff.
// `fetch` instead of EventSource, because that hides the status and cannot resume after a pause.

import { LOGIN, SILENT, refusal } from "./api.js";

const SILENCE = 3000;
/** The first state of a host with thousands of ports may take longer. */
const PATIENCE = 10000;
const BACKOFF = [1, 2, 4, 8];

/** Splits the text of a stream into events. */
class Parser {
  #rest = "";
  #event = { type: "message", data: [], id: null };

  /** Returns the events that this piece completes. */
  push(piece) {
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") {
        if (this.#event.data.length) events.push({ ...this.#event, data: this.#event.data.join("\n") });
        this.#event = { type: "message", data: [], id: null };
      } else this.#field(line);
    }
    return events;
  }

  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#event.type = value;
    else if (name === "data") this.#event.data.push(value);
    else if (name === "id") this.#event.id = value;
  }
}

/** Where contact stands: `since` and `next` are times of `performance.now()`. */
export class Stream {
  contact = { lost: true, first: true, since: performance.now(), next: null, why: null };
  #on;
  #last = null;
  #tries = 0;
  #abort = null;
  #timer = 0;
  #heard = performance.now();

  /** `on.state(view)`, `on.change(change)`, `on.contact(contact)`, `on.ended()`. */
  constructor(on) {
    this.#on = on;
  }

  start() {
    void this.#connect();
  }

  /** Tries now, without waiting for the next time. */
  retry() {
    this.#tries = 0;
    this.#abort?.abort("again");
    void this.#connect();
  }

  async #connect() {
    clearTimeout(this.#timer);
    const abort = (this.#abort = new AbortController());
    this.contact.next = null;
    this.#watch(PATIENCE);
    try {
      await this.#read(abort);
      throw new Error("the connection has ended");
    } catch (error) {
      if (abort !== this.#abort) return;
      const wasSilent = abort.signal.aborted;
      // A stream that is not read would hold its place.
      abort.abort("over");
      this.#lose(wasSilent ? "nothing is heard from the host: see whether tramad and the connection to it work" : error.message);
    }
  }

  async #read(abort) {
    const headers = { accept: "text/event-stream" };
    if (this.#last !== null) headers["last-event-id"] = this.#last;
    const request = fetch("/v1/events", { headers, signal: abort.signal, cache: "no-store" });
    const response = await request.catch((error) => {
      throw abort.signal.aborted ? error : new Error(SILENT);
    });
    if (response.status === 401) {
      this.#on.ended();
      throw new Error(`the session has ended: run ${LOGIN}`);
    }
    if (!response.ok) throw new Error(await refusal(response));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new Parser();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      for (const event of parser.push(value)) this.#take(event);
    }
  }

  #take(event) {
    if (event.id !== null) this.#last = event.id;
    if (event.type === "end") throw new Error(JSON.parse(event.data).reason);
    if (event.type !== "state" && event.type !== "change") return;
    const data = JSON.parse(event.data);
    this.#watch(SILENCE);
    this.#heard = performance.now();
    if (event.type === "state" && data.sequence != null) this.#last = String(data.sequence);
    this.#tries = 0;
    if (event.type === "state") this.#on.state(data);
    else this.#on.change(data);
    if (this.contact.lost) {
      this.contact = { lost: false, first: false, since: performance.now(), next: null, why: null };
      this.#on.contact(this.contact);
    }
  }

  /** Ends a connection that is silent: a dead one may look open for minutes. */
  #watch(most) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#abort?.abort("silent"), most);
  }

  #lose(why) {
    const wait = BACKOFF[Math.min(this.#tries, BACKOFF.length - 1)] * 1000;
    this.#tries += 1;
    const now = performance.now();
    const since = this.contact.lost ? this.contact.since : this.#heard;
    this.contact = { lost: true, first: this.contact.first, since, next: now + wait, why };
    this.#on.contact(this.contact);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), wait);
  }
}
