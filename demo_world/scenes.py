"""The kinds of relevance of the demo world, as training triples and as graded titles of a query.

A scene is a handful of subjects that are easily mistaken for each other. Each side of a scene can write queries for
its own subject and titles about it. A title is relevant to the queries of its own side and to no others, so every
title is relevant to one query of its scene and irrelevant to the rest: a title alone does not reveal its label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from paddle_ranker.data.rows.dice import Dice

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Field:
    """Branch of knowledge: modifiers, heads by split, and general words that its papers use as keywords."""

    name: str
    modifiers: tuple[str, ...]
    heads: dict[str, tuple[str, ...]]
    tags: tuple[str, ...]


def _field(name: str, modifiers: str, train: str, dev: str, test: str, tags: str) -> Field:
    heads = {"train": tuple(train.split()), "dev": tuple(dev.split()), "test": tuple(test.split())}
    return Field(name, tuple(modifiers.split()), heads, tuple(tags.split()))


FIELDS = (
    _field(
        "医学",
        "慢性 急性 重症 顽固性 原发性 复发性 轻度 术后",
        "糖尿病 高血压 胃溃疡 哮喘 偏头痛 贫血 肺炎 湿疹 肾衰竭 失眠症 骨质疏松 冠心病 咽炎 痛风",
        "胰腺炎 癫痫 白内障 肝硬化 鼻窦炎",
        "甲状腺结节 心律失常 荨麻疹 脑卒中 关节炎",
        "临床观察 护理 用药 疗效 预后 随访",
    ),
    _field(
        "法学",
        "跨境 网络 民事 格式 隐名 劳动 商业 行政",
        "合同 侵权责任 仲裁 证据规则 担保 知识产权 诉讼时效 股权转让 缔约过失 调解 处罚 公证 代理 管辖",
        "破产重整 不当得利 举证责任 名誉权 赔偿",
        "居住权 善意取得 违约金 听证 强制执行",
        "立法 司法解释 案例 法律适用 判决 比较法",
    ),
    _field(
        "教育",
        "双语 混合式 小班化 远程 项目式 个性化 职业 校本",
        "阅读教学 课堂评价 作业设计 课程开发 班级管理 德育 实验教学 "
        "写作训练 教材编写 家校合作 翻转课堂 思维培养 学习动机 听力教学",
        "劳动教育 口语测评 美育 校园欺凌 导师制",
        "生涯规划 教学督导 研学旅行 词汇习得 社团活动",
        "问卷 课例 核心素养 师资 学业成绩 反思",
    ),
    _field(
        "计算机",
        "分布式 轻量级 多模态 端到端 自监督 实时 异构 可解释",
        "图像分割 目标检测 机器翻译 语音识别 推荐系统 入侵检测 路径规划 "
        "知识图谱 情感分析 负载均衡 人脸识别 数据库 缓存 加密算法",
        "文本摘要 点云配准 区块链 联邦学习 代码补全",
        "行人重识别 问答系统 手势识别 边缘计算 隐写术",
        "算法 数据集 神经网络 精度 复杂度 仿真",
    ),
    _field(
        "农学",
        "设施 旱作 有机 转基因 间作 滴灌 盐碱地 早熟",
        "水稻 玉米 大豆 小麦 番茄 棉花 苹果 马铃薯 茶树 花生 油菜 黄瓜 葡萄 甘蔗",
        "草莓 谷子 辣椒 柑橘 向日葵",
        "高粱 甜瓜 枸杞 芝麻 西兰花",
        "田间试验 土壤 养分 品种 栽培 虫害",
    ),
    _field(
        "材料",
        "纳米 多孔 复合 柔性 梯度 超薄 定向 耐热",
        "陶瓷 钛合金 石墨烯 水凝胶 混凝土 涂层 纤维 薄膜 镁合金 橡胶 玻璃 焊料 催化剂 磁体",
        "气凝胶 钙钛矿 不锈钢 沥青 泡沫铝",
        "聚酰亚胺 铜箔 硬质合金 生物炭 隔膜",
        "微观结构 力学性能 制备 表征 腐蚀 热处理",
    ),
    _field(
        "经济",
        "绿色 数字 普惠 县域 跨国 家族 出口 小微",
        "信贷 供应链 产业集群 税收 并购 物流 保险 债券 股利政策 创业 消费 品牌 租赁 审计",
        "期货 众筹 薪酬激励 营商环境 存货管理",
        "碳交易 养老金 关税 风险投资 零售",
        "面板数据 实证 政策 市场 企业 回归",
    ),
    _field(
        "心理",
        "内隐 社会 网络 延迟 共情 自我 消极 集体",
        "焦虑 攻击行为 孤独感 决策偏差 依恋 注意力 自尊 拖延 归因 记忆 幸福感 认同 恐惧 信任",
        "嫉妒 羞耻感 心理韧性 创造力 冷漠",
        "内疚 职业倦怠 好奇心 偏见 抑郁",
        "量表 问卷 中介效应 干预 实验 访谈",
    ),
    _field(
        "环境",
        "工业 城镇 近海 湖泊 矿区 大气 地下 流域",
        "污水 重金属 噪声 固体废物 臭氧 富营养化 微塑料 碳排放 抗生素 生态补偿 石油污染 粉尘 湿地 氨氮",
        "黑臭水体 赤潮 酸雨 二噁英 渗滤液",
        "沙尘暴 余热 农药残留 藻华 放射性废物",
        "监测 吸附 修复 排放标准 治理 风险",
    ),
    _field(
        "历史",
        "明代 清末 民国 唐代 江南 西北 边疆 宋代",
        "漕运 科举 盐政 书院 茶马贸易 户籍 驿站 宗族 报刊 铁路 瓷器 移民 赋役 寺院",
        "海禁 壁画 会馆 钱庄 屯田",
        "里甲 碑刻 学堂 织造 商帮",
        "史料 考证 地方志 制度 社会变迁 档案",
    ),
    _field(
        "语言文学",
        "英汉 当代 古典 网络 方言 口语 乡土 女性",
        "委婉语 隐喻 小说 诗歌 量词 语气词 散文 流行语 叙事 戏曲 称谓语 成语 翻译 童话",
        "歇后语 歧义句 神话 话语标记 传记",
        "谚语 双关 寓言 语码转换 挽歌",
        "文化 语用 语料库 修辞 文本 审美",
    ),
    _field(
        "工程",
        "大跨度 装配式 高速 微型 智能 低温 双馈 液压",
        "桥梁 隧道 轴承 电机 齿轮 起重机 风力发电机 锅炉 机器人 泵站 变压器 边坡 管道 压缩机",
        "盾构机 换热器 离合器 挡土墙 光伏电站",
        "减速器 钻井平台 水轮机 桩基 电梯",
        "有限元 振动 故障 优化设计 可靠性 施工",
    ),
)


def _by_split(train: str, dev: str, test: str) -> dict[str, tuple[str, ...]]:
    return {"train": tuple(train.split()), "dev": tuple(dev.split()), "test": tuple(test.split())}


# Queries: {0} is the subject asked for. The wording is neutral, so all splits share it.
QUERY_FRAMES = (
    "{0}",
    "{0}",
    "{0}",
    "{0}研究",
    "{0}论文",
    "{0}分析",
    "关于{0}的研究",
    "{0}相关文献",
    "有哪些关于{0}的文章",
    "{0}方面的研究进展",
    "怎样研究{0}",
    "{0} 综述",
)

# Titles: {0} is the body. Every split has its own phrases, made of words that all splits use.
TITLE_FRAMES = _by_split(
    "{0}研究 {0}的研究 {0}分析 {0}探讨 试论{0} 浅析{0} {0}的若干问题 {0}初步探讨 我国{0}研究 {0}研究进展 关于{0}的思考 "
    "{0}的实验研究 {0}综述",
    "{0}的若干思考 试析{0} {0}的初步分析 关于{0}的探讨 {0}问题研究 {0}的进展 我国{0}分析 {0}的综述",
    "{0}的思考 浅论{0} {0}若干问题分析 关于{0}研究的综述 {0}的探讨 {0}实验分析 我国{0}的若干进展",
)

# Background: {0} is only the setting (the title says so twice), {1} is the paper's subject. All splits share the words
# that mark {0} as the setting; each split combines them in its own way.
BACKGROUND_FRAMES = _by_split(
    "{0}背景下的{1}：{0}的启示 借鉴{0}的{1}——以{0}为鉴 {0}启发的{1}：{0}的经验 除{0}以外的{1}——与{0}对照 "
    "参照{0}的{1}：{0}的启示 {0}时代的{1}——借鉴{0} {0}经验下的{1}：参照{0}",
    "以{0}为鉴的{1}：参照{0} {0}背景下的{1}——{0}的经验 与{0}对照的{1}：{0}的启示 {0}启发的{1}——除{0}以外",
    "参照{0}的{1}——{0}的经验 以{0}为鉴的{1}——{0}的启示 {0}时代的{1}：与{0}对照 除{0}以外的{1}：借鉴{0}",
)

# Direction: {0} acts on {1}. Each split has its own verbs; the grammar (对 … 的, 受 … 的) is common.
DIRECTION_VERBS = _by_split(
    "影响 调节 促进作用 抑制作用 冲击 贡献 改造",
    "制约 推动作用 干扰 塑造",
    "驱动作用 削弱 渗透 反作用",
)
DIRECTION_FRAMES = ("{0}对{1}的{2}", "{0}对{1}的{2}", "{0}对于{1}的{2}")
PASSIVE_FRAMES = ("{1}受{0}的{2}", "{1}中来自{0}的{2}")

# Words that change the subject: 抗X is not X, X教材 is not X. Common ones are seen in training, the others are not.
MARKERS = ("非{0}", "抗{0}", "仿{0}", "伪{0}", "{0}教材", "{0}替代品", "{0}从业者", "{0}软件", "{0}专利", "{0}术语")
NEW_MARKERS = {
    "train": (),
    "dev": ("拟{0}", "亚{0}", "{0}展览", "{0}题材电影"),
    "test": ("准{0}", "泛{0}", "{0}词典", "{0}周边产品"),
}

# Sets of meanings that exclude each other; the words of one meaning are synonyms.
SynonymSet = tuple[tuple[str, ...], ...]


def _sets(text: str) -> tuple[SynonymSet, ...]:
    return tuple(
        tuple(tuple(meaning.split("/")) for meaning in line.split()) for line in text.strip().splitlines() if line
    )


# Words of one meaning share the character that carries it; other characters are often shared by excluding meanings.
SETTINGS = _sets("""
老年人/老龄人群/老人 青年人/青壮年人群/青年 幼年人/幼儿人群/幼童
农村/农家村落/务农地区 城市/城镇/都市城区
女性/妇女/女子 男性/男士/男子
早期/早先阶段/早年 晚期/晚近阶段/晚年
国内/内地/境内 国外/外国/境外
夏季/夏天/盛夏 冬季/冬天/寒冬
南部/南方/华南地区 北部/北方/华北地区
""")
ASPECTS = _sets("""
治疗方法/疗法/诊疗 预防方法/防范/防控
成因/原因/因素 后果/结果/效果
优势/优点/优越之处 缺陷/缺点/欠缺之处
提高/提升/高速增长 降低/下降/降速
历史/史略/发展史 前景/前途/发展前瞻
成本/本钱/工本 收益/效益/增益
""")
# Words of one meaning that share no character: a model knows them only from seeing them together.
FAR_SYNONYMS = _sets("""
高校/大学 小学/初等学堂
医生/杏林人士 护士/看护人员
现状/概况 对策/措施
衡量/评估 选址/布局
""")
NEW_SYNONYMS = {
    "train": (),
    "dev": _sets("""
孕妇/怀孕妇女/孕期人群 产妇/产后妇女/生产期人群
上午/上半天/午前 下午/下半天/午后
山区/山地/多山地区 海区/海域/沿海地区
"""),
    "test": _sets("""
工人/产业工人/务工人员 商人/经商人员/行商
春季/春天/早春 秋季/秋天/深秋
东部/东方/华东地区 西部/西方/西北地区
"""),
}

# People and institutions: in a query for a topic they are where the paper comes from, and titles do not name them.
SURNAMES = tuple("王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗")
GIVEN_NAMES = _by_split(
    "建国 志强 丽华 晓明 文静 海燕 国栋 玉兰 思远 春生 立新 雅琴 伟 敏 芳 磊",
    "永平 嘉怡 振华 秀英 静 凯",
    "德胜 若兰 宏图 淑贞 勇 洁",
)
PLACES = _by_split(
    "北京 江苏 湖南 西南 华东 山东 浙江 东北 广西 河南 南京 兰州",
    "四川 华南 安徽 天津",
    "云南 华北 福建 西安",
)
INSTITUTIONS = ("大学", "师范大学", "农业大学", "理工大学", "医科大学", "科学院", "研究院", "财经大学")
PERSON_ASPECTS = ("学术思想", "生平", "年谱", "书法作品", "教育理念", "口述史")
PLACE_ASPECTS = ("校史", "馆藏", "校园规划", "人才引进", "创办经过", "大学生就业", "档案整理", "老建筑")

# Titles that set two subjects side by side.
COMPARISONS = _by_split(
    "{0}与{1}的比较 {0}和{1}的关系 {0}与{1}的异同 {0}与{1}对比",
    "{0}和{1}的差异 {0}与{1}的联系",
    "{0}与{1}的区别 {0}和{1}的关联",
)


@dataclass(frozen=True)
class Title:
    """Title with keywords appended, and its grade for its side: 2, or 1 if it also treats another subject."""

    text: str
    grade: int


@dataclass(frozen=True)
class Side:
    """Subject of a scene, which writes queries for it and titles about it."""

    query: Callable[[], str]
    title: Callable[[], Title]


@dataclass(frozen=True)
class Scene:
    """Subjects that are easily confused; `heads` are the words that unrelated titles avoid."""

    kind: str
    heads: frozenset[str]
    sides: tuple[Side, ...]


class Author:
    """Generator of queries and titles: it draws their subjects at random, and phrases them as its split does."""

    def __init__(self, dice: Dice, split: str) -> None:
        self.dice = dice
        self.split = split

    def field(self) -> Field:
        """Draw a field."""
        return self.dice.pick(FIELDS)

    def heads(self, field: Field, count: int) -> list[str]:
        """Draw `count` different heads of `field` in this split."""
        return self.dice.sample(field.heads[self.split], count)

    def topic(self, field: Field, head: str) -> str:
        """Return `head`, with a modifier three times out of four."""
        return self.dice.pick(field.modifiers) + head if self.dice.chance(0.75) else head

    def ask(self, subject: str) -> str:
        """Return a query for `subject`; one in five also names an author or an institution."""
        asked = self.dice.pick(QUERY_FRAMES).format(subject)
        return self.under(self.name(), asked) if self.dice.chance(0.2) else asked

    def under(self, name: str, asked: str) -> str:
        """Add the name of an author or an institution to the query `asked`, at either end."""
        return self.dice.pick(("{0} {1}", "{0}{1}", "{1} {0}")).format(name, asked)

    def institution(self) -> str:
        """Draw an institution of this split."""
        return self.dice.pick(PLACES[self.split]) + self.dice.pick(INSTITUTIONS)

    def person(self) -> str:
        """Draw a person of this split."""
        return self.dice.pick(SURNAMES) + self.dice.pick(GIVEN_NAMES[self.split])

    def name(self) -> str:
        """Draw an institution, a person or both."""
        return self.dice.pick((self.institution(), self.person(), self.institution() + self.person()))

    def write(
        self, field: Field, body: str, keywords: list[str], avoid: tuple[str, ...] = (), framed: bool = True
    ) -> Title:
        """Return a title around `body`, with `keywords` and one or two general ones appended.

        One title in four treats a second subject, too (grade 1), whose head is not in `avoid`.
        """
        dice = self.dice
        tags = dice.sample(field.tags, 1 + dice.below(2))
        keywords = list(keywords)
        grade = 2
        if dice.chance(0.25):
            others = [head for head in field.heads[self.split] if head not in avoid]
            other = self.topic(field, dice.pick(others))
            body = f"{body}与{other}" if dice.chance(0.5) else f"{other}与{body}"
            keywords.append(other)
            grade = 1
        text = dice.pick(TITLE_FRAMES[self.split]).format(body) if framed else body
        # Mostly a general word comes first, so that commas separate the subjects from the title.
        glued = [tags.pop()] if dice.chance(0.75) else []
        return Title(text + ",".join(glued + dice.shuffled(keywords + tags)), grade)

    def write_topic(self, field: Field, topic: str, avoid: tuple[str, ...]) -> Title:
        """Return a plain title about `topic`."""
        tag = self.dice.pick(field.tags)
        body = self.dice.pick(("{0}", "{0}", "{0}的{1}", "{1}视角下的{0}", "{0}中的{1}问题")).format(topic, tag)
        return self.write(field, body, [topic], avoid)


def part(author: Author) -> Scene:
    """Topics that share their modifier or their head."""
    field, dice = author.field(), author.dice
    head, other = author.heads(field, 2)
    modifier, second = dice.sample(field.modifiers, 2)
    avoid = (head, other)

    def side(topic: str) -> Side:
        return Side(lambda: author.ask(topic), lambda: author.write_topic(field, topic, avoid))

    topics = (modifier + head, modifier + other, second + head)
    return Scene("part", frozenset(avoid), tuple(side(topic) for topic in topics))


def background(author: Author) -> Scene:
    """Distinguish a paper's subject from its background; keywords name only the subject."""
    field, dice = author.field(), author.dice
    heads = author.heads(field, 2)
    first, second = (author.topic(field, head) for head in heads)

    def side(central: str, setting: str) -> Side:
        def title() -> Title:
            if dice.chance(0.1):
                return author.write_topic(field, central, tuple(heads))
            body = dice.pick(BACKGROUND_FRAMES[author.split]).format(setting, central)
            return author.write(field, body, [central], tuple(heads), framed=False)

        return Side(lambda: author.ask(central), title)

    return Scene("background", frozenset(heads), (side(first, second), side(second, first)))


def direction(author: Author) -> Scene:
    """Distinguish "A acts on B" from "B acts on A"."""
    field, dice = author.field(), author.dice
    heads = author.heads(field, 2)
    first, second = (author.topic(field, head) for head in heads)
    verb = dice.pick(DIRECTION_VERBS[author.split])

    def side(cause: str, effect: str) -> Side:
        def say(passive: float) -> str:
            frames = PASSIVE_FRAMES if dice.chance(passive) else DIRECTION_FRAMES
            return dice.pick(frames).format(cause, effect, verb)

        return Side(
            lambda: say(0.1), lambda: author.write(field, say(0.15), dice.shuffled([cause, effect]), tuple(heads))
        )

    return Scene("direction", frozenset(heads), (side(first, second), side(second, first)))


def _contrast(author: Author, kind: str, markers: tuple[str, ...]) -> Scene:
    field, dice = author.field(), author.dice
    head = author.heads(field, 1)[0]
    topic = author.topic(field, head)

    def side(subject: str) -> Side:
        return Side(lambda: author.ask(subject), lambda: author.write_topic(field, subject, (head,)))

    subjects = [topic] + [marker.format(topic) for marker in dice.sample(markers, 1)]
    return Scene(kind, frozenset((head,)), tuple(side(subject) for subject in subjects))


def contrast(author: Author) -> Scene:
    """Distinguish a subject X from a subject that a small word changes (非X, X教材)."""
    return _contrast(author, "contrast", MARKERS)


def contrast_new(author: Author) -> Scene:
    """Vary `contrast` with words that training never shows; it only shows that some words change the subject."""
    return _contrast(author, "contrast_new", NEW_MARKERS[author.split])


def _synonym(author: Author, kind: str, meanings: SynonymSet, template: str) -> Scene:
    field, dice = author.field(), author.dice
    head = author.heads(field, 1)[0]
    topic = author.topic(field, head)

    def side(words: tuple[str, ...]) -> Side:
        asked = dice.pick(words)
        others = [word for word in words if word != asked]

        def title() -> Title:
            word = dice.pick(others) if dice.chance(0.8) else asked
            return author.write(field, template.format(topic, word), [topic, word], (head,))

        return Side(lambda: author.ask(template.format(topic, asked)), title)

    return Scene(kind, frozenset((head,)), tuple(side(words) for words in meanings))


def synonym(author: Author) -> Scene:
    """Distinguish a synonym (夏季, 夏天) from a word that excludes it (冬季); one shared character decides."""
    if author.dice.chance(0.5):
        return _synonym(author, "synonym", author.dice.pick(SETTINGS), "{1}{0}")
    return _synonym(author, "synonym", author.dice.pick(ASPECTS), "{0}的{1}")


def synonym_far(author: Author) -> Scene:
    """Vary `synonym` with synonyms that share no character (高校, 大学); training has them with other topics."""
    return _synonym(author, "synonym_far", author.dice.pick(FAR_SYNONYMS), "{0}的{1}")


def synonym_new(author: Author) -> Scene:
    """Vary `synonym` with sets that training never shows; one of the shared characters decides."""
    return _synonym(author, "synonym_new", author.dice.pick(NEW_SYNONYMS[author.split]), "{1}{0}")


def source(author: Author) -> Scene:
    """Distinguish papers by a person or an institution from papers about them."""
    field, dice = author.field(), author.dice
    head = author.heads(field, 1)[0]
    topic = author.topic(field, head)
    name, aspects = dice.pick(((author.institution(), PLACE_ASPECTS), (author.person(), PERSON_ASPECTS)))
    aspect = dice.pick(aspects)

    def query() -> str:
        return author.under(name, dice.pick(QUERY_FRAMES).format(topic))

    def about() -> Title:
        return author.write(field, f"{name}{aspect}", [name, aspect], (head,))

    def query_about() -> str:
        return dice.pick(QUERY_FRAMES).format(f"{name}{aspect}")

    by_author = Side(query, lambda: author.write_topic(field, topic, (head,)))
    return Scene("source", frozenset((head,)), (by_author, Side(query_about, about)))


def abbreviation(author: Author) -> Scene:
    """Distinguish a topic, shortened to the first characters of its two parts, from topics that share a part."""
    field, dice = author.field(), author.dice
    head, other = author.heads(field, 2)
    modifier, second = dice.sample(field.modifiers, 2)
    shorten_query = dice.chance(0.7)

    def side(first: str, last: str) -> Side:
        topic, short = first + last, first[0] + last[0]
        asked, written = (short, topic) if shorten_query else (topic, short)
        return Side(lambda: author.ask(asked), lambda: author.write_topic(field, written, (head, other)))

    pairs = ((modifier, head), (modifier, other), (second, head))
    return Scene("abbreviation", frozenset((head, other)), tuple(side(*pair) for pair in pairs))


def attachment(author: Author) -> Scene:
    """Distinguish which of two modifiers belongs to which of two heads."""
    field, dice = author.field(), author.dice
    heads = author.heads(field, 2)
    modifiers = dice.sample(field.modifiers, 2)

    def side(last: int) -> Side:
        topics = [modifiers[0] + heads[last], modifiers[1] + heads[1 - last]]

        def title() -> Title:
            body = dice.pick(COMPARISONS[author.split]).format(*dice.shuffled(topics))
            return author.write(field, body, topics, tuple(heads), framed=False)

        return Side(lambda: author.ask(dice.pick((topics[0], f"{topics[0]}和{topics[1]}"))), title)

    return Scene("attachment", frozenset(heads), (side(0), side(1)))


# How many of 50 scenes are of each kind, in train, and in dev and test.
TRAIN_SCENES: dict[Callable[[Author], Scene], int] = {
    part: 5, background: 7, direction: 5, contrast: 10, synonym: 8, synonym_far: 2, source: 5, abbreviation: 5,
    attachment: 3,
}  # fmt: skip
HELD_OUT_SCENES: dict[Callable[[Author], Scene], int] = {
    part: 5, background: 7, direction: 5, contrast: 8, contrast_new: 2, synonym: 6, synonym_new: 2, synonym_far: 2,
    source: 5, abbreviation: 5, attachment: 3,
}  # fmt: skip


def scenes(author: Author) -> Iterator[Scene]:
    """Yield scenes endlessly; every 50 of them have each kind as often as the split's table says."""
    shares = TRAIN_SCENES if author.split == "train" else HELD_OUT_SCENES
    plan = [make for make, count in shares.items() for _ in range(count)]
    while True:
        for make in author.dice.shuffled(plan):
            yield make(author)


TITLES_PER_QUERY = 10
HARD_PER_QUERY = 6
# At least `HARD_PER_QUERY`: in a scene of two sides, all hard negatives come from the other side.
TITLES_PER_SIDE = 6
# Easy negatives are titles of this many recent sides; the number is fixed, so memory does not grow with the rows.
_RECENT_SIDES = 200


@dataclass(frozen=True)
class Group:
    """Query with its titles and their grades (0: not relevant, 1: partly, 2: wholly)."""

    query: str
    titles: tuple[str, ...]
    grades: tuple[int, ...]
    kind: str


class _Recent:
    """Titles of recent sides, from which a title on an unrelated subject can be drawn.

    All sides are equally likely, as they are among relevant titles: otherwise a title's kind would reveal its label.
    """

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.sides: list[list[Title]] = []
        self.added = 0

    @property
    def full(self) -> bool:
        return len(self.sides) == _RECENT_SIDES

    def add(self, titles: list[Title]) -> None:
        if self.full:
            self.sides[self.added % _RECENT_SIDES] = titles
        else:
            self.sides.append(titles)
        self.added += 1

    def unrelated(self, heads: frozenset[str]) -> Title:
        """Return a title that names none of `heads`, not even as a second subject."""
        while True:
            title = self.dice.pick(self.dice.pick(self.sides))
            if not any(head in title.text for head in heads):
                return title


def _distinct_titles(side: Side, count: int) -> list[Title]:
    titles: dict[str, Title] = {}
    for _ in range(4 * count):
        title = side.title()
        titles.setdefault(title.text, title)
        if len(titles) == count:
            break
    return list(titles.values())


def _scenes_with_titles(author: Author, per_side: int, recent: _Recent) -> Iterator[tuple[Scene, list[list[Title]]]]:
    """Yield scenes and the titles of each side, once `recent` is full of earlier ones."""
    for scene in scenes(author):
        titles = [_distinct_titles(side, per_side) for side in scene.sides]
        if recent.full:
            yield scene, titles
        for side_titles in titles:
            recent.add(side_titles)


def triples(seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield (query, title, negative title) endlessly.

    Every title of a scene is the relevant title of one triple and, with probability 0.7, the hard negative of another.
    The other triples have a title on an unrelated subject as their negative.
    """
    dice = Dice(seed, "train")
    author, recent = Author(dice, "train"), _Recent(dice)
    for scene, titles in _scenes_with_titles(author, 1, recent):
        shift = 1 + dice.below(len(titles) - 1)
        for index, side in enumerate(scene.sides):
            hard = titles[(index + shift) % len(titles)][0]
            negative = hard if dice.chance(0.7) else recent.unrelated(scene.heads)
            yield side.query(), titles[index][0].text, negative.text


def groups(seed: int, split: str) -> Iterator[Group]:
    """Yield queries of `split` ("dev" or "test") endlessly, each with its titles in random order."""
    dice = Dice(seed, split)
    author, recent = Author(dice, split), _Recent(dice)
    for scene, titles in _scenes_with_titles(author, TITLES_PER_SIDE, recent):
        for index, side in enumerate(scene.sides):
            relevant = dice.sample(titles[index], 1 + dice.below(4))
            rest = [title for other, pool in enumerate(titles) if other != index for title in pool]
            rows = {title.text: title.grade for title in relevant}
            for title in dice.sample(rest, HARD_PER_QUERY):
                rows.setdefault(title.text, 0)
            while len(rows) < TITLES_PER_QUERY:
                rows.setdefault(recent.unrelated(scene.heads).text, 0)
            order = dice.shuffled(list(rows))
            yield Group(side.query(), tuple(order), tuple(rows[text] for text in order), scene.kind)
