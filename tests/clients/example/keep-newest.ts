type Told = { version: number; value: unknown };

/** At one version only the clock changes a drop, and of it only the status, in this order. */
const STATUSES: unknown[] = ["SCHEDULED", "LIVE", "SOLD_OUT", "ENDED", "CANCELLED"];

function isBefore(name: string, one: Told, other: Told) {
  if (one.version !== other.version || name !== "status") return one.version < other.version;
  return STATUSES.indexOf(one.value) < STATUSES.indexOf(other.value);
}

/** Replaces in each answer what is older than what an answer or event before it told, field by field. */
export function keepNewest() {
  const seen = new Map<string, Told>();
  return function keep<T>(node: T, dropVersion?: number): T {
    if (Array.isArray(node)) return node.map((entry) => keep(entry, dropVersion)) as T;
    if (typeof node !== "object" || node === null) return node;
    const { id, stockVersion: version = dropVersion } = node as { id?: string; stockVersion?: number };
    const fields = Object.entries(node).map(([name, value]) => {
      // A drop's version is that of its sizes; what other lists hold has none.
      const inner = name === "sizes" ? version : undefined;
      if (typeof value === "object" && value !== null) return [name, keep(value, inner)];
      if (id === undefined || version === undefined) return [name, value];
      const before = seen.get(`${id} ${name}`);
      if (before && isBefore(name, { version, value }, before)) return [name, before.value];
      seen.set(`${id} ${name}`, { version, value });
      return [name, value];
    });
    return Object.fromEntries(fields);
  };
}
