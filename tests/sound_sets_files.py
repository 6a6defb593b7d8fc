"""Makes the sets of sounds in miniature, each in the layout that its creators hand out."""

import json

from sound_files import write

WORDS = ("backward", "down", "yes")


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def sounds(root, names, frames=400, rate=16_000):
    for seed, name in enumerate(names):
        write(root / name, frames, rate, seed=seed)


def nsynth(root):
    for part, count in (("train", 4), ("valid", 2), ("test", 2)):
        base = root / "nsynth" / f"nsynth-{part}"
        notes = {}
        for i in range(count):
            family = ("guitar", "bass")[i % 2]
            notes[f"{family}_acoustic_00{i}-060-100"] = {"instrument_family_str": family, "instrument_str": f"{family}_00{i}", "pitch": 60}
        sounds(base, [f"audio/{note}.wav" for note in notes])
        lines(base / "examples.json", [json.dumps(notes)])


def urbansound8k(root):
    base = root / "UrbanSound8K"
    rows = [(f"{100 + i // 2}-{i % 2}-0-{i}.wav", 100 + i // 2, i % 10 + 1, ("siren", "dog_bark")[i % 2]) for i in range(20)]
    table = [f"{name},{source},0.0,4.0,1,{fold},{i % 2},{kind}" for i, (name, source, fold, kind) in enumerate(rows)]
    lines(base / "metadata" / "UrbanSound8K.csv", ["slice_file_name,fsID,start,end,salience,fold,classID,class", *table])
    sounds(base / "audio", [f"fold{fold}/{name}" for name, _, fold, _ in rows], rate=44_100)


def esc50(root):
    base = root / "ESC-50-master"
    rows = [(f"{i % 5 + 1}-{i}-A-0.wav", i % 5 + 1, i % 2, ("dog", "rain")[i % 2], 1000 + i // 2) for i in range(10)]
    table = [f"{name},{fold},{target},{category},True,{source},A" for name, fold, target, category, source in rows]
    lines(base / "meta" / "esc50.csv", ["filename,fold,target,category,esc10,src_file,take", *table])
    sounds(base / "audio", [row[0] for row in rows], rate=44_100)


def voxceleb1(root):
    base = root / "voxceleb1"
    rows = [(i % 3 + 1, f"id1000{i % 2}/video{i}/0000{i}.wav") for i in range(6)]
    lines(base / "iden_split.txt", [f"{part} {name}" for part, name in rows])
    sounds(base, [f"{'dev' if 'id10000' in name else 'test'}/wav/{name}" for _, name in rows])


def voxforge(root):
    for language in ("de", "en"):
        for speaker in range(10):
            folder = root / "voxforge" / language / f"{language}speaker{speaker}-20100101-abc"
            sounds(folder, ["wav/a1.wav", "wav/a2.wav"])
            lines(folder / "etc" / "PROMPTS", ["a1 hello"])


def speechcommands(root):
    base = root / "speech_commands_v0.02"
    names = [f"{word}/{speaker}_nohash_0.wav" for word in WORDS for speaker in "abcd"]
    sounds(base, names)
    sounds(base, ["_background_noise_/running_tap.wav", "_background_noise_/pink_noise.wav"], frames=40_000)
    lines(base / "validation_list.txt", [n for n in names if "/c_" in n])
    lines(base / "testing_list.txt", [n for n in names if "/d_" in n])
    test = root / "speech_commands_test_set_v0.02"
    sounds(test, ["_silence_/0.wav", "_unknown_/backward_d.wav", "down/d_nohash_0.wav", "yes/d_nohash_0.wav"])


def fsd50k(root):
    base = root / "FSD50K"
    lines(base / "FSD50K.ground_truth" / "vocabulary.csv", ["0,Bark,/m/05tny_", "1,Dog,/m/0bt9lr", "2,Rain,/m/06mb1"])
    dev = ['1,"Bark,Dog","/m/05tny_,/m/0bt9lr",train', "2,Rain,/m/06mb1,train", "3,Dog,/m/0bt9lr,val"]
    lines(base / "FSD50K.ground_truth" / "dev.csv", ["fname,labels,mids,split", *dev])
    lines(base / "FSD50K.ground_truth" / "eval.csv", ["fname,labels,mids", '4,"Rain,Dog","/m/06mb1,/m/0bt9lr"', "5,Bark,/m/05tny_"])
    sounds(base, [f"FSD50K.dev_audio/{i}.wav" for i in (1, 2, 3)] + [f"FSD50K.eval_audio/{i}.wav" for i in (4, 5)])


def gtzan(root):
    sounds(root / "genres", [f"{g}/{g}.{i:05d}.wav" for g in ("blues", "jazz") for i in range(20)], rate=22_050)


def cremad(root):
    names = [f"AudioWAV/{1001 + a}_DFA_{e}_XX.wav" for a in range(20) for e in ("ANG", "SAD")]
    sounds(root / "CREMA-D", names)


def fsdd(root):
    sounds(root / "fsdd", [f"{d}_{s}_{t}.wav" for d in (0, 1) for s in ("jackson", "theo") for t in range(10)], rate=8_000)
