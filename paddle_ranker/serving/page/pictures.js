// A file of the visitor's, dropped on the page or chosen, that documents should be like. The page loads this where the
// index has vectors of files.

import { acts } from "./answer.js";
import { loadStyles, make } from "./nodes.js";
import { say } from "./words.js";

const SENT = 512; // pixels of the longer side of the picture that is sent
const MOST = 8; // MB of a sound
const hasFiles = (event) => [...(event.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");
const refuse = (word, file) => (document.getElementById("notice").textContent = say(word, { name: file.name, most: MOST }));

/** Search by a picture, made small enough for a request. */
async function searchByPicture(file) {
  const image = await createImageBitmap(file);
  const scale = Math.min(1, SENT / Math.max(image.width, image.height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(image.width * scale)), height: Math.max(1, Math.round(image.height * scale)) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  acts.searchLike("", { kind: "picture", url: canvas.toDataURL("image/png") });
}

/** Search by a sound, as it is. */
async function searchByRecording(file) {
  if (file.size > MOST * 1e6) return refuse("too_large", file);
  const url = await new Promise((resolve, reject) => {
    const reader = Object.assign(new FileReader(), { onload: () => resolve(reader.result), onerror: reject });
    reader.readAsDataURL(new Blob([file], { type: "application/octet-stream" }));
  });
  acts.searchLike("", { kind: "recording", url });
}

const KINDS = { picture: ["image/", searchByPicture], recording: ["audio/", searchByRecording] };

/** Offer a search by files of the types of fields that the index has vectors of. */
export function takeFiles(types) {
  const kinds = Object.keys(KINDS).filter((kind) => types.includes(kind));
  const label = document.getElementById("example");
  if (!kinds.length || !label.hidden) return;
  const search = (file) => {
    const kind = kinds.find((one) => file.type.startsWith(KINDS[one][0]));
    (kind ? KINDS[kind][1](file) : Promise.reject(file)).catch(() => refuse("unreadable", file));
  };
  const input = label.querySelector("input");
  loadStyles("pictures.css");
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    search(event.dataTransfer.files[0]);
  });
  label.prepend(...kinds.flatMap((kind) => [make("span", { "data-say": `by_${kind}` }, say(`by_${kind}`)), " "]));
  input.accept = kinds.map((kind) => `${KINDS[kind][0]}*`).join();
  input.addEventListener("change", () => {
    if (input.files[0]) search(input.files[0]);
    input.value = "";
  });
  label.hidden = false;
}
