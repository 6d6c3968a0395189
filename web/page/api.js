// Requests to the web process: each answer is JSON, each refusal an `Error` with its remedy.
// When the session has ended, the page is told once for all requests.

import { plain } from "./words.js";

/** Said when the session has ended. */
export const LOGIN = "tramactl web";

/** Said when the web process does not answer. */
export const SILENT = "the host does not answer: see whether tramad runs there";

let onEnd = () => {};

/** Sets what is done when an answer says whether the session has ended. */
export const whenSessionEnds = (listener) => (onEnd = listener);

/** Returns the text of a refusal. */
export async function refusal(response) {
  let said = null;
  try {
    said = (await response.json()).error;
  } catch {
    // The body is not JSON: the status has to do.
  }
  return said ? plain(said) : `the web process answered ${response.status}: see the log of tramad`;
}

async function accepted(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error(SILENT);
  }
  if (response.status === 401) onEnd(true);
  else if (response.ok) onEnd(false);
  if (!response.ok) throw new Error(await refusal(response));
  return response;
}

const answer = async (request) => (await accepted(request)).json();

const path = (name, query) => {
  const text = new URLSearchParams(query ?? {}).toString();
  return text ? `/v1/${name}?${text}` : `/v1/${name}`;
};

/** Reads something. */
export const get = (name, query, signal) => answer(fetch(path(name, query), { signal }));

/** Asks for something. The header keeps forms of other sites from doing the same. */
export const post = (name, body) =>
  answer(
    fetch(path(name), {
      method: "POST",
      headers: { "content-type": "application/json", "x-trama": "1" },
      body: JSON.stringify(body),
    }),
  );

/** Starts a capture; returns the response, of which the body grows. */
export const startCapture = (port, seconds, signal) =>
  accepted(fetch(path("capture", { port, seconds }), { signal }));
