// Zones, lines and rules of the fake server: what the boxes of each frame amount to.
export class Watch {
  #inside = new Map();
  #alerts = new Map();
  #last = new Map();
  #crossed = new Map();

  /** Events of one frame; `now` is in milliseconds. */
  look(detections, { zones, lines, rules }, { width, height }, now) {
    const events = [];
    const objects = detections.map(({ box: [x1, y1, x2, y2], object_id, class_id, class: name }) => ({
      about: { object_id, class_id, class: name },
      at: (anchor) => [(x1 + x2) / 2 / width, (anchor === "bottom" ? y2 : (y1 + y2) / 2) / height],
    }));
    for (const { name: zone, polygon, anchor, dwell_s } of zones) {
      const inside = this.#inside.get(zone) ?? new Map();
      this.#inside.set(zone, inside);
      const present = objects.filter(({ at }) => contains(polygon, at(anchor)));
      for (const [id, { about, since }] of inside) {
        if (present.some(({ about: { object_id } }) => object_id === id)) continue;
        inside.delete(id);
        events.push({ type: "zone_left", zone, ...about, dwell_ms: now - since, count: inside.size });
      }
      for (const { about } of present) {
        const known = inside.get(about.object_id);
        if (!known) {
          inside.set(about.object_id, { about, since: now, told: false });
          events.push({ type: "zone_entered", zone, ...about, count: inside.size });
        } else if (dwell_s && !known.told && now - known.since >= dwell_s * 1_000) {
          known.told = true;
          events.push({ type: "zone_dwelled", zone, ...about, dwell_ms: now - known.since });
        }
      }
    }
    for (const { name: line, points: [[ax, ay], [bx, by]], anchor } of lines) {
      const crossed = this.#crossed.get(line) ?? { left_to_right: 0, right_to_left: 0 };
      this.#crossed.set(line, crossed);
      for (const { about, at } of objects) {
        const [x, y] = at(anchor);
        const side = Math.sign((bx - ax) * (y - ay) - (by - ay) * (x - ax));
        const key = `${line} ${about.object_id}`;
        const before = this.#last.get(key);
        this.#last.set(key, side);
        if (!before || !side || before === side) continue;
        const direction = side > 0 ? "left_to_right" : "right_to_left";
        crossed[direction] += 1;
        events.push({ type: "line_crossed", line, direction, ...about, ...crossed });
      }
    }
    events.push(...this.#judge(rules ?? [], now));
    return events;
  }

  #judge(rules, now) {
    const events = [];
    const holds = new Map();
    for (const { name: rule, zone, classes, longer_than_s, more_than } of rules) {
      const inside = [...(this.#inside.get(zone)?.values() ?? [])].filter(({ about }) => !classes?.length || classes.includes(about.class));
      const count = inside.length;
      if (more_than !== undefined) {
        if (count > more_than) holds.set(`${rule} all`, { rule, zone, object_id: null, class_id: null, class: null, count });
      } else {
        for (const { about, since } of inside) {
          if (now - since > (longer_than_s ?? 0) * 1_000) holds.set(`${rule} ${about.object_id}`, { rule, zone, ...about, count });
        }
      }
    }
    for (const [key, { rule, zone, object_id, since }] of this.#alerts) {
      if (holds.has(key)) continue;
      this.#alerts.delete(key);
      events.push({ type: "alert_ended", rule, zone, object_id, duration_ms: now - since });
    }
    for (const [key, alert] of holds) {
      if (this.#alerts.has(key)) continue;
      this.#alerts.set(key, { ...alert, since: now });
      events.push({ type: "alert_started", ...alert });
    }
    return events;
  }
}

/** Whether a point is in a polygon, by the even-odd rule. */
function contains(polygon, [x, y]) {
  let inside = false;
  polygon.forEach(([ax, ay], index) => {
    const [bx, by] = polygon.at(index - 1);
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  });
  return inside;
}
