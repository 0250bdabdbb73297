// A picture of the visitor's, dropped on the page or chosen. The page loads this where the index has pictures.

import { addWords, make, say, searchLike } from "./search.js";

addWords({
  zh: {
    unreadable: "无法读取图片：{name}",
  },
  en: {
    unreadable: "This picture cannot be read: {name}",
  },
});

const SENT = 512; // pixels of the longer side of the picture that is sent
const hasFiles = (event) => [...(event.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");

/** Search by a file of the visitor, made small enough for a request. */
async function searchByFile(file) {
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(1, SENT / Math.max(image.width, image.height));
    const canvas = make("canvas", { width: Math.max(1, Math.round(image.width * scale)), height: Math.max(1, Math.round(image.height * scale)) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    searchLike("", canvas.toDataURL("image/png"));
  } catch {
    document.getElementById("notice").textContent = say("unreadable", { name: file.name });
  }
}

document.head.append(make("link", { rel: "stylesheet", href: "page/pictures.css" }));
document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  searchByFile(event.dataTransfer.files[0]);
});
document.getElementById("picture").hidden = false;
document.querySelector("#picture input").addEventListener("change", ({ target }) => {
  if (target.files[0]) searchByFile(target.files[0]);
  target.value = "";
});
