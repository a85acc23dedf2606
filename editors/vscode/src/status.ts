// The status bar item: an icon for the state, with the server's reason in the tooltip.

import * as vscode from "vscode";
import { ExecuteCommandRequest, type LanguageClient } from "vscode-languageclient/node";

type State = "starting" | "loading" | "ready" | "silent" | "stopped" | "failed";

const icons: Record<State, string> = {
    starting: "$(loading~spin)",
    loading: "$(loading~spin)",
    ready: "$(check)",
    silent: "$(circle-slash)",
    stopped: "$(circle-slash)",
    failed: "$(warning)",
};

export class Status implements vscode.Disposable {
    private readonly item = vscode.window.createStatusBarItem("nanochat.status", vscode.StatusBarAlignment.Right);

    constructor(command: string) {
        this.item.name = "nanochat";
        this.item.command = command;
    }

    show(state: State, detail?: string | null): void {
        this.item.text = `${icons[state]} nanochat`;
        this.item.tooltip = `nanochat: ${state}${detail ? `; ${detail}` : ""}`;
        this.item.backgroundColor =
            state === "failed" ? new vscode.ThemeColor("statusBarItem.warningBackground") : undefined;
        this.item.show();
    }

    dispose(): void {
        this.item.dispose();
    }
}

/** Polls the server's status: every second while it loads, then when a Rust file is opened or saved. */
export function watchStatus(client: LanguageClient, status: Status): vscode.Disposable {
    let timer: NodeJS.Timeout | undefined;
    let isDisposed = false;
    const ask = async () => {
        clearTimeout(timer);
        timer = undefined;
        if (isDisposed || !client.isRunning()) {
            return;
        }
        let answer: unknown;
        try {
            answer = await client.sendRequest(ExecuteCommandRequest.type, { command: "nanochat.status" });
        } catch (error) {
            client.warn("cannot get the status of the server", error);
            return;
        }
        if (isDisposed || !isAnswer(answer)) {
            return;
        }
        status.show(answer.state, answer.reason);
        if (answer.state === "loading") {
            timer = setTimeout(() => void ask(), 1000);
        }
    };
    const askAboutRust = (document: vscode.TextDocument) => {
        if (document.languageId === "rust") {
            void ask();
        }
    };
    void ask();
    return vscode.Disposable.from(
        vscode.workspace.onDidOpenTextDocument(askAboutRust),
        vscode.workspace.onDidSaveTextDocument(askAboutRust),
        {
            dispose: () => {
                isDisposed = true;
                clearTimeout(timer);
            },
        },
    );
}

function isAnswer(value: unknown): value is { state: "loading" | "ready" | "silent"; reason: string | null } {
    return (
        typeof value === "object" &&
        value !== null &&
        "state" in value &&
        ["loading", "ready", "silent"].includes(String(value.state))
    );
}
