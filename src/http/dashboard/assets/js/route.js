// The address of what is shown: `#/projects/web/environments/production/flags`.

/** The views of an environment, in the order of the navigation. */
export const VIEWS = [
  { key: "flags", title: "Flags" },
  { key: "live", title: "Listeners & pings" },
  { key: "webhooks", title: "Webhooks" },
  { key: "audit", title: "Audit" },
];

/** The views that show who is listening. */
export const LIVE_VIEWS = ["flags", "live"];

/** Reads the address bar; parts that are missing are null. */
export function readRoute(hash = location.hash) {
  const parts = hash.replace(/^#\/?/, "").split("/").map(decode);
  const [projects, project, environments, environment, view] = parts;
  if (projects !== "projects" || !project) return { project: null, environment: null, view: "flags" };
  const inEnvironment = environments === "environments" && Boolean(environment);
  return {
    project,
    environment: inEnvironment ? environment : null,
    view: VIEWS.some(({ key }) => key === view) ? view : "flags",
  };
}

/** The address of a view. */
export function routeHash({ project, environment, view }) {
  const head = `#/projects/${encodeURIComponent(project)}`;
  if (!environment) return head;
  return `${head}/environments/${encodeURIComponent(environment)}/${view}`;
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
