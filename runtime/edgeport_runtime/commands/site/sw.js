// Keeps what the page has fetched, so that it works offline after the first visit. With a connection, the server's files
// come first, so that a page that was replaced is seen at once; those that are named by their digest cannot change.

const SITE = `edgeport ${self.registration.scope} `; // other pages of this server have caches of their own
const CACHE = `${SITE}VERSION`;
const PAGE = ["./", "style.css", "app.js", "bundle.json"]; // the first visit fetched them before this was there

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const isOurs = new URL(event.request.url).origin === self.location.origin;
  if (isOurs && event.request.method === "GET") event.respondWith(answer(event.request));
});

async function install() {
  const cache = await caches.open(CACHE);
  await cache.addAll(PAGE.map((name) => new Request(name, { cache: "no-cache" })));
  await self.skipWaiting();
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(SITE) && name !== CACHE) await caches.delete(name);
  }
  await self.clients.claim();
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const digest = new URL(request.url).search.slice(1);
  const fixed = digest === "" ? undefined : await cache.match(request);
  if (fixed !== undefined) return fixed;
  let response;
  try {
    response = await fetch(request);
  } catch (error) {
    const kept = await cache.match(request.mode === "navigate" ? "./" : request);
    if (kept !== undefined) return kept;
    throw error;
  }
  if (response.ok && (digest === "" || digest === (await sha256(response.clone())))) {
    // Without room for it, the page works as before, but not offline.
    await cache.put(request, response.clone()).catch((error) => console.warn(`not kept: ${error.message}`));
  }
  return response;
}

async function sha256(response) {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await response.arrayBuffer()));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
