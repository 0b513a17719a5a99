// A Leaflet map of event clusters. Leaflet comes with NiceGUI. Text from events reaches the page as text only.
import { leaflet as L } from "nicegui-leaflet";

const MAX_ZOOM = 17;
const WORLD = L.latLngBounds([-84, -190], [84, 190]);

export default {
  template: '<div class="event-map"></div>',
  props: { features: Array, bounds: Array, center: Array, zoom: Number, outlines: String, resourcePath: String },
  emits: ["view", "open"],
  async mounted() {
    await this.$nextTick();
    await this.loadStyle();
    this.markers = new Map();
    this.map = L.map(this.$el, {
      center: this.center, zoom: this.zoom, minZoom: 1, maxZoom: MAX_ZOOM, maxBounds: WORLD,
      preferCanvas: true, zoomAnimation: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    });
    this.map.attributionControl.setPrefix("Outlines: Natural Earth");
    this.map.on("moveend", () => this.sendView());
    this.map.on("dragstart zoomstart", () => { this.moved = true; });
    this.fit();
    this.theme = new MutationObserver(() => this.paint());
    this.theme.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.size = new ResizeObserver(() => this.map.invalidateSize());
    this.size.observe(this.$el);
    this.connected = setInterval(() => {
      if (window.socket?.connected) { clearInterval(this.connected); this.sendView(); }
    }, 100);
    this.show();
    await this.loadOutlines();
  },
  unmounted() {
    clearInterval(this.connected);
    this.theme?.disconnect();
    this.size?.disconnect();
    this.map?.remove();
  },
  watch: { features() { this.show(); }, bounds() { this.fit(); } },
  methods: {
    loadStyle() {
      return new Promise((resolve) => {
        const link = document.createElement("link");
        Object.assign(link, { rel: "stylesheet", href: `${this.resourcePath}/leaflet.css`, onload: resolve, onerror: resolve });
        document.head.append(link);
      });
    },
    async loadOutlines() {
      const answer = await fetch(this.outlines);
      if (!answer.ok || !this.map) return;
      this.land = L.geoJSON(await answer.json(), { interactive: false }).addTo(this.map);
      this.paint();
    },
    paint() {
      const colour = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
      this.land?.setStyle({ color: colour("--border"), weight: 1, fillColor: colour("--land"), fillOpacity: 1 });
    },
    fit() {
      if (this.map && this.bounds && !this.moved) this.map.fitBounds(this.bounds, { maxZoom: 8, padding: [40, 40] });
    },
    sendView() {
      const bounds = this.map.getBounds();
      this.$emit("view", {
        south: bounds.getSouth(), west: bounds.getWest(), north: bounds.getNorth(), east: bounds.getEast(),
        zoom: this.map.getZoom(),
      });
    },
    show() {
      if (!this.map) return;
      const shown = new Set(this.features.map((feature) => feature.key));
      for (const [key, marker] of this.markers) {
        if (!shown.has(key)) { marker.remove(); this.markers.delete(key); }
      }
      for (const feature of this.features) {
        const marker = this.markers.get(feature.key) ?? this.add(feature);
        marker.setLatLng([feature.lat, feature.lon]);
        this.label(marker, feature);
      }
    },
    add(feature) {
      const icon = L.divIcon({ className: "cluster", iconSize: null });
      const marker = L.marker([feature.lat, feature.lon], { icon }).addTo(this.map);
      marker.on("click", () => this.open(marker.feature));
      marker.getElement().addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        this.open(marker.feature);
      });
      this.markers.set(feature.key, marker);
      return marker;
    },
    label(marker, feature) {
      marker.feature = feature;
      const [info, warning, critical] = feature.counts;
      const count = info + warning + critical;
      const element = marker.getElement();
      for (const name of ["info", "warning", "critical"]) element.classList.toggle(name, name === feature.severity);
      element.classList.toggle("single", count === 1);
      const style = element.style;
      style.setProperty("--size", `${count === 1 ? 16 : Math.min(54, 26 + 7 * Math.log10(count))}px`);
      style.setProperty("--critical-share", `${(100 * critical) / count}%`);
      style.setProperty("--warning-share", `${(100 * (critical + warning)) / count}%`);
      element.textContent = count === 1 ? "" : feature.text;
      element.setAttribute("aria-label", feature.label);
      element.title = feature.label;
    },
    open(feature) {
      const single = feature.counts.reduce((sum, count) => sum + count) === 1;
      if (single || this.map.getZoom() >= MAX_ZOOM) this.$emit("open", feature.key);
      else this.map.setView([feature.lat, feature.lon], Math.min(MAX_ZOOM, this.map.getZoom() + 2));
    },
  },
};
