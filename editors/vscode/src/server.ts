// Finds the server program: in the setting, on PATH, or in cargo's bin folder.

import { accessSync, constants, statSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import * as vscode from "vscode";

export interface Server {
    command: string;
    args: string[];
}

export const notFound =
    "neither nanochat-lsp nor cargo-nanochat is on PATH; install one of them, or set nanochat.server.path";

/** The command line of the server, or undefined if it is not installed. */
export function findServer(): Server | undefined {
    const path = vscode.workspace.getConfiguration("nanochat").get<string>("server.path", "").trim();
    if (path) {
        return { command: path.replace(/^~(?=$|[/\\])/, homedir()), args: [] };
    }
    const server = findProgram("nanochat-lsp");
    if (server) {
        return { command: server, args: [] };
    }
    const subcommand = findProgram("cargo-nanochat");
    return subcommand ? { command: subcommand, args: ["lsp"] } : undefined;
}

function findProgram(name: string): string | undefined {
    // If VS Code was not started from a shell, cargo's folder is often missing from PATH.
    const cargo = join(process.env["CARGO_HOME"] ?? join(homedir(), ".cargo"), "bin");
    const folders = [...(process.env["PATH"] ?? "").split(delimiter).filter(Boolean), cargo];
    const file = process.platform === "win32" ? `${name}.exe` : name;
    return folders.map((folder) => join(folder, file)).find(isProgram);
}

function isProgram(path: string): boolean {
    try {
        accessSync(path, constants.X_OK);
        return statSync(path).isFile();
    } catch {
        return false;
    }
}
