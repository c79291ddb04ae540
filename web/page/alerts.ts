import { SaccadeError } from "../sdk/index.js";
import { element, make } from "./dom.js";

const area = element("alerts", HTMLDivElement);

/** Shows an error in plain language; one of the same code takes the place of the one before. */
export function showError(error: SaccadeError): void {
  clearError(error.code);
  const dismiss = make("button", "Dismiss", "quiet");
  dismiss.type = "button";
  const box = make("div", [make("strong", error.title), make("p", error.hint), dismiss], "alert");
  if (error.detail) box.insertBefore(make("p", error.detail, "detail"), dismiss);
  box.dataset["code"] = error.code;
  box.dataset["kind"] = error.fatal ? "fatal" : "passing";
  dismiss.addEventListener("click", () => box.remove());
  area.prepend(box);
  while (area.childElementCount > 3) area.lastElementChild?.remove();
}

/** Takes away the error with this code. */
export function clearError(code: string): void {
  area.querySelector(`[data-code="${CSS.escape(code)}"]`)?.remove();
}

/** Takes away all errors, or only those that were to pass by themselves. */
export function clearErrors(onlyPassing = false): void {
  area.querySelectorAll(onlyPassing ? '[data-kind="passing"]' : ".alert").forEach((box) => box.remove());
}
