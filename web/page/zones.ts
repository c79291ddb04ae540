import type { Anchor, Line, Rule, Zone } from "../sdk/index.js";
import type { Activity } from "./activity.js";
import { Latest } from "./classes.js";
import { element, make } from "./dom.js";
import {
  changedLine,
  changedZone,
  type Draft,
  flippedLine,
  renamedLine,
  renamedZone,
  ruleWords,
  type Site,
  withDwell,
  withoutLine,
  withoutRule,
  withoutZone,
  withRule,
} from "./shapes.js";

/** What the card asks of its owner. */
export interface CardHandlers {
  /** The site is to be another one; `null`: it cannot, and the card shows the old one again. */
  change(site: Site | null): void;
  /** Names of the classes of the model in use. */
  classes(): Promise<readonly string[]>;
}

/** The card that lists zones and lines, with everything about them that is not drawn. */
export class ZonesCard {
  readonly #zones = element("zone-list", HTMLUListElement);
  readonly #lines = element("line-list", HTMLUListElement);
  readonly #empty = element("zones-empty", HTMLElement);
  readonly #json = element("site-json", HTMLPreElement);
  readonly #zoneItems: ZoneItem[] = [];
  readonly #lineItems: LineItem[] = [];
  #site: Site = { zones: [], lines: [], rules: [] };

  constructor(private readonly handlers: CardHandlers) {}

  /** Shows the site, and what its events amount to. */
  show(site: Site, activity: Activity): void {
    this.#site = site;
    const alarmed = new Set(activity.alerts.map(({ rule }) => rule));
    fit(this.#zoneItems, site.zones.length, (index) => new ZoneItem(this.#zones, index, () => this.#site, this.handlers));
    fit(this.#lineItems, site.lines.length, (index) => new LineItem(this.#lines, index, () => this.#site, this.handlers));
    site.zones.forEach((zone, index) => {
      const rules = site.rules.filter((rule) => rule.zone === zone.name);
      this.#zoneItems[index]?.show(zone, rules, activity.inside(zone.name), alarmed);
    });
    site.lines.forEach((line, index) => this.#lineItems[index]?.show(line, activity));
    this.#empty.hidden = site.zones.length + site.lines.length > 0;
    const { zones, lines, rules } = site;
    const json = JSON.stringify({ zones, lines, rules });
    if (this.#json.textContent !== json) this.#json.textContent = json;
  }

  /** Puts the focus on the name of the last zone or line. */
  focusLast(kind: Draft["kind"]): void {
    (kind === "zone" ? this.#zoneItems : this.#lineItems).at(-1)?.focus();
  }
}

/** What zones and lines have in common: a name, an anchor, and an end. */
abstract class Item {
  readonly element = make("li", "", "item");
  protected readonly name = make("input");
  protected readonly count = make("span", "", "count");
  protected readonly anchor = make("select");
  protected readonly tools = make("div", "", "tools");
  readonly #remove = make("button", "Delete", "quiet");
  #shownName = "";

  constructor(
    list: HTMLUListElement,
    kind: "zone" | "line",
    protected readonly site: () => Site,
    protected readonly handlers: CardHandlers,
  ) {
    this.element.dataset["kind"] = kind;
    this.name.type = "text";
    this.name.maxLength = 40;
    this.name.setAttribute("aria-label", `Name of the ${kind}`);
    this.name.addEventListener("change", () => {
      this.handlers.change(this.renamed(this.name.value));
      this.name.value = this.#shownName;
    });
    this.anchor.append(new Option("Box centre", "center"), new Option("Box bottom", "bottom"));
    this.anchor.addEventListener("change", () => this.handlers.change(this.anchored(this.anchor.value as Anchor)));
    this.#remove.type = "button";
    this.#remove.addEventListener("click", () => {
      const next = this.element.nextElementSibling ?? this.element.previousElementSibling;
      this.handlers.change(this.removed());
      // The items are filled anew from the first on, so that the last element goes.
      const heir = this.element.isConnected ? this.element : next?.isConnected ? next : null;
      (heir?.querySelector<HTMLElement>(".head button") ?? element(`draw-${kind}`, HTMLButtonElement)).focus();
    });
    const mark = make("i", "", "mark");
    mark.setAttribute("aria-hidden", "true");
    this.element.append(make("div", [mark, this.name, this.count, this.#remove], "head"));
    this.tools.append(field("Counts at", this.anchor));
    this.element.append(this.tools);
    list.append(this.element);
  }

  focus(): void {
    this.name.focus({ preventScroll: true });
    this.name.select();
  }

  protected abstract renamed(name: string): Site | null;
  protected abstract anchored(anchor: Anchor): Site;
  protected abstract removed(): Site;

  protected put(name: string, anchor: Anchor = "center"): void {
    this.#shownName = name;
    // Events come while somebody types.
    if (this.name !== document.activeElement) this.name.value = name;
    this.anchor.value = anchor;
    this.#remove.setAttribute("aria-label", `Delete ${name}`);
  }
}

class LineItem extends Item {
  constructor(list: HTMLUListElement, private readonly index: number, site: () => Site, handlers: CardHandlers) {
    super(list, "line", site, handlers);
    const flip = make("button", "Flip direction", "quiet");
    flip.type = "button";
    flip.addEventListener("click", () => handlers.change(flippedLine(site(), index)));
    this.tools.append(flip);
  }

  show({ name, anchor }: Line, activity: Activity): void {
    this.put(name, anchor);
    const crossings = activity.crossings(name) ?? { left_to_right: 0, right_to_left: 0 };
    const text = `${crossings.left_to_right} left to right · ${crossings.right_to_left} right to left`;
    if (this.count.textContent !== text) this.count.textContent = text;
  }

  protected renamed(name: string): Site | null {
    return renamedLine(this.site(), this.index, name);
  }

  protected anchored(anchor: Anchor): Site {
    return changedLine(this.site(), this.index, { anchor });
  }

  protected removed(): Site {
    return withoutLine(this.site(), this.index);
  }
}

class ZoneItem extends Item {
  readonly #dwell = make("input");
  readonly #rules = make("ul", "", "rules");
  readonly #form: RuleForm;
  #shownRules = "";
  #shownDwell = "";

  constructor(list: HTMLUListElement, private readonly index: number, site: () => Site, handlers: CardHandlers) {
    super(list, "zone", site, handlers);
    const dwell = this.#dwell;
    Object.assign(dwell, { type: "number", min: "0", max: "3600", step: "any", placeholder: "never" });
    dwell.addEventListener("change", () => {
      const seconds = dwell.value === "" ? null : dwell.valueAsNumber;
      handlers.change(dwell.validity.valid ? withDwell(site(), index, seconds) : null);
      dwell.value = this.#shownDwell;
    });
    this.tools.append(field("Dwells after, s", dwell));
    this.#form = new RuleForm(() => site().zones[index]?.name ?? "", handlers, (rule) => {
      handlers.change(withRule(site(), rule));
    });
    this.element.append(this.#rules, this.#form.element);
  }

  show({ name, anchor, dwell_s }: Zone, rules: readonly Rule[], inside: number | null, alarmed: ReadonlySet<string>): void {
    this.put(name, anchor);
    this.#shownDwell = dwell_s === undefined ? "" : String(dwell_s);
    if (this.#dwell !== document.activeElement) this.#dwell.value = this.#shownDwell;
    const text = `${inside ?? 0} inside`;
    if (this.count.textContent !== text) this.count.textContent = text;
    const shown = JSON.stringify(rules);
    if (shown !== this.#shownRules) this.#rules.replaceChildren(...rules.map((rule) => this.#ruleItem(rule)));
    this.#shownRules = shown;
    rules.forEach((rule, index) => this.#rules.children[index]?.toggleAttribute("data-alarmed", alarmed.has(rule.name)));
  }

  protected renamed(name: string): Site | null {
    return renamedZone(this.site(), this.index, name);
  }

  protected anchored(anchor: Anchor): Site {
    return changedZone(this.site(), this.index, { anchor });
  }

  protected removed(): Site {
    return withoutZone(this.site(), this.index);
  }

  #ruleItem(rule: Rule): HTMLLIElement {
    const remove = make("button", "Delete", "quiet");
    remove.type = "button";
    remove.setAttribute("aria-label", `Delete alert ${rule.name}`);
    remove.addEventListener("click", () => {
      this.handlers.change(withoutRule(this.site(), rule.name));
      this.#form.focus();
    });
    const words = [make("b", rule.name), document.createTextNode(` ${ruleWords(rule)}`), make("em", " on now")];
    return make("li", [make("span", words), remove]);
  }
}

/** What adds a rule to a zone: closed, a button; open, the rule's class and condition. */
class RuleForm {
  readonly element = make("div", "", "rule");
  readonly #open = make("button", "Add alert", "quiet");
  readonly #form = make("form");
  readonly #class = make("select");
  readonly #condition = make("select");
  readonly #value = make("input");
  readonly #name = make("input");
  readonly #classes = new Latest();

  constructor(
    private readonly zone: () => string,
    private readonly handlers: CardHandlers,
    private readonly onRule: (rule: Rule) => void,
  ) {
    this.#open.type = "button";
    this.#open.setAttribute("aria-expanded", "false");
    this.#open.addEventListener("click", () => void this.#show());
    this.#condition.append(new Option("longer than, s", "longer"), new Option("more than", "more"));
    this.#condition.addEventListener("change", () => this.#suit());
    Object.assign(this.#value, { type: "number", required: true });
    Object.assign(this.#name, { type: "text", maxLength: 40, placeholder: "alert" });
    this.#suit();
    const add = make("button", "Add", "quiet");
    add.type = "submit";
    const cancel = make("button", "Cancel", "quiet");
    cancel.type = "button";
    cancel.addEventListener("click", () => this.#hide());
    this.#form.hidden = true;
    this.#form.append(
      field("Class", this.#class),
      field("Condition", this.#condition),
      field("Value", this.#value),
      field("Name", this.#name),
      make("div", [add, cancel], "buttons"),
    );
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.onRule(this.#rule());
      this.#hide();
    });
    this.#form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.#hide();
    });
    this.element.append(this.#open, this.#form);
  }

  focus(): void {
    this.#open.focus();
  }

  #rule(): Rule {
    const chosen = this.#class.value;
    const value = this.#value.valueAsNumber;
    return {
      name: this.#name.value,
      zone: this.zone(),
      ...(chosen && { classes: [chosen] }),
      ...(this.#condition.value === "longer" ? { longer_than_s: value } : { more_than: value }),
    };
  }

  #suit(): void {
    const longer = this.#condition.value === "longer";
    Object.assign(this.#value, { min: "0", max: longer ? "3600" : "100", step: longer ? "any" : "1", value: longer ? "2" : "3" });
  }

  async #show(): Promise<void> {
    this.#open.hidden = true;
    this.#form.hidden = false;
    this.#name.value = "";
    this.#class.replaceChildren(new Option("anything", ""));
    this.#class.focus();
    const names = await this.#classes.ask(() => this.handlers.classes());
    this.#class.append(...(names ?? []).map((name) => new Option(name, name)));
  }

  #hide(): void {
    this.#classes.drop();
    this.#form.hidden = true;
    this.#open.hidden = false;
    this.#open.focus();
  }
}

/** Makes `items` as many as wanted; they stay where they are, so that the focus does, too. */
function fit<T extends { element: HTMLElement }>(items: T[], length: number, make: (index: number) => T): void {
  while (items.length > length) items.pop()?.element.remove();
  while (items.length < length) items.push(make(items.length));
}

function field(text: string, control: HTMLElement): HTMLLabelElement {
  return make("label", [make("span", text), control], "field");
}
