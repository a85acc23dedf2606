// A real VS Code in a real browser: types into a file, waits for ghost text, keeps a picture, accepts it.
//
// node ghost_text.mjs '{"url": …, "after": …, "typed": […], "picture": …, "chromium": …}'
//
// `url` opens the folder and the file. `after` is a text of the file: the line is typed on a new line after the one that has it. Of `typed` each part is
// typed in turn, with a pause in which ghost text may appear; the picture is taken when it does after the last.

import { chromium } from "playwright-core";

const options = JSON.parse(process.argv[2]);
const seconds = (n) => n * 1000;

const browser = await chromium.launch({ executablePath: options.chromium, args: ["--no-sandbox", "--force-color-profile=srgb"] });
let failure;
try {
    const page = await browser.newPage({ viewport: { width: 1180, height: 620 }, deviceScaleFactor: 1.5 });
    await page.goto(options.url, { waitUntil: "domcontentloaded" });
    await page.waitForSelector(".monaco-workbench .part.statusbar", { timeout: seconds(90) });

    await goTo(page, options.after);
    await page.waitForSelector('.statusbar-item:has-text("nanochat")', { timeout: seconds(60) });
    await ready(page);

    for (const part of options.typed) {
        await page.keyboard.type(part, { delay: 60 });
        await page.waitForTimeout(400);
    }
    const ghost = await ghostText(page);
    console.log(`ghost text: ${JSON.stringify(ghost)}`);
    if (options.picture) {
        await page.mouse.move(1100, 560);
        await page.waitForTimeout(300);
        await page.screenshot({ path: options.picture });
    }
    await page.keyboard.press("Tab");
    await page.waitForSelector(".ghost-text-decoration, .ghost-text", { state: "detached", timeout: seconds(10) });
    const accepted = await page.evaluate(() => [...document.querySelectorAll(".view-line")].map((each) => each.textContent.replaceAll("\u00a0", " ")));
    const wanted = (options.typed.join("") + ghost).trim();
    if (!accepted.some((each) => each.includes(wanted))) {
        throw Error(`after Tab no line has ${JSON.stringify(wanted)}`);
    }
    console.log(`accepted: ${JSON.stringify(wanted)}`);
} catch (error) {
    failure = error;
    const pages = browser.contexts().flatMap((context) => context.pages());
    if (options.picture && pages.length) {
        await pages[0].screenshot({ path: options.picture.replace(/(\.png)?$/, ".failed.png") });
    }
} finally {
    await browser.close();
}
if (failure) {
    console.error(failure);
    process.exit(1);
}

/** Leaves the cursor of the open file on a new line after the one that has `after`. */
async function goTo(page, after) {
    await page.waitForSelector(".monaco-editor .view-line", { timeout: seconds(60) });
    await page.click(".monaco-editor .view-lines");
    await page.keyboard.press("Control+F");
    await page.waitForSelector(".find-widget.visible textarea:focus");
    await page.keyboard.type(after, { delay: 20 });
    await page.waitForSelector('.find-widget .matchesCount:has-text("of")', { timeout: seconds(20) });
    await page.keyboard.press("Escape");
    await page.waitForSelector(".find-widget.visible", { state: "hidden" });
    await page.keyboard.press("End");
    await page.keyboard.press("Enter");
}

/** Waits until the status bar says that checkpoint and memory are loaded. */
async function ready(page) {
    await page.waitForSelector('.statusbar-item:has-text("nanochat") .codicon-check', { timeout: seconds(120) });
}

async function ghostText(page) {
    const selector = ".monaco-editor .ghost-text-decoration, .monaco-editor .ghost-text";
    await page.waitForSelector(selector, { timeout: seconds(30) });
    const texts = await page.$$eval(selector, (found) => found.map((each) => each.textContent));
    return texts.join("").replaceAll("\u00a0", " ");
}
