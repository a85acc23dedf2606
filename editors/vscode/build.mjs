// Bundles the extension into dist/, together with the licences of the bundled packages.

import { build } from "esbuild";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

rmSync("dist", { recursive: true, force: true });
const { metafile } = await build({
    entryPoints: ["src/extension.ts"],
    outfile: "dist/extension.js",
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20", // VS Code 1.91 runs extensions in Node 20
    external: ["vscode"],
    minify: true,
    metafile: true,
});

const folders = Object.keys(metafile.inputs)
    .map((input) => input.match(/^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0])
    .filter((folder) => folder !== undefined);
const notices = [...new Set(folders)].sort().map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
    if (!file) {
        throw new Error(`${name} is bundled but has no licence file`);
    }
    return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
});
writeFileSync("dist/THIRD-PARTY.txt", notices.join(`\n${"-".repeat(78)}\n\n`));

for (const licence of ["LICENSE-MIT", "LICENSE-APACHE"]) {
    const source = join("../..", licence);
    if (existsSync(source)) {
        copyFileSync(source, join("dist", `${licence}.txt`));
    }
}
