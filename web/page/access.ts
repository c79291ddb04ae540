import { element } from "./dom.js";

/** Where the token is kept while the tab is open, so that all pages have it. */
const KEY = "saccade-token";

/** The token that was given on one of the pages, or an empty text. */
export function token(): string {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Lets people give a token in the field `#token`; calls back with every change. */
export function watchToken(onChange: () => void): void {
  const field = element("token", HTMLInputElement);
  field.value = token();
  // A form of its own keeps browsers content; it goes nowhere.
  field.form?.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("change", () => {
    sessionStorage.setItem(KEY, field.value.trim());
    onChange();
  });
}

/** What the server says is wrong, for people. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Asks the server, with the token; throws {@link Refused} with its sentence where it refuses. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token()) headers.set("authorization", `Bearer ${token()}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it running?");
  }
  if (response.ok) return response;
  const problem: unknown = await response.json().catch(() => null);
  const detail = typeof problem === "object" && problem !== null && "detail" in problem ? String(problem.detail) : "";
  throw new Refused(response.status, detail || `The server answered with ${response.status}.`);
}
